"""`sql.query`: rows by a statement of the user's own. Its values are bound, never part of the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.data.rows import Batch, SpooledRows
from runner.errors import Problem, StepError
from runner.nodes.arguments import read_under
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.textfile import declared_types, read_switch
from schemas.nodes import Port
from schemas.parsing import deliver, parse_value
from schemas.sqltext import SqlText, read_sql, writes
from schemas.types import Connection, Delivered, ValueProblem, ValueType

ANY = ValueType("any", True)
SQL = Port("sql", ValueType("text"), True, literal=True, help="one statement; :name makes a port")
COLUMNS = Port(
    "columns", ValueType("json"), literal=True, shape="column_types",
    help="name: type of the result's columns; without it they are known at run time only",
)  # fmt: skip
TYPES = Port("types", ValueType("json"), literal=True, shape="column_types", help="name: type of places")
_ASKS = {"ts_stat", "ts_rewrite", "crosstab", "connectby", "xpath_table", "dblink", "dblink_exec", "dblink_open"}
_ASKS_ENDINGS = ("_to_xml", "_to_xmlschema", "_to_xml_and_xmlschema")
"""Functions of PostgreSQL that run a text which they are given."""
_OF_ROWS = ("select", "with", "values", "table", "insert", "update", "delete", "merge")
CROSS_TENANT = Port(
    "cross_tenant", ValueType("boolean"), default=False, literal=True,
    help="it may name tables of tenants; the run must be allowed to (--allow-cross-tenant)",
)  # fmt: skip
ONE_ROW = Port("one_row", ValueType("boolean"), default=False, literal=True, help="the value is the one row, not rows")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with what goes into its places, each with its type (`any`: as it comes). crosses: the tables of
    tenants that it reaches across all of them."""

    sql: SqlText
    values: Mapping[str, object]
    kinds: Mapping[str, ValueType]
    crosses: tuple[str, ...] = ()
    columns: Mapping[str, ValueType] | None = None
    is_one_row: bool = False


def sql_ports(own: tuple[Port, ...], arguments: Mapping[str, object]) -> dict[str, Port]:
    """The ports of a node with a statement: its own, and one for each place in the text."""
    ports = {port.name: port for port in own}
    if "sql" not in arguments:
        return ports
    for name in read_under("sql", lambda: read_sql(arguments["sql"])).names:
        if name in ports:
            raise ValueProblem(f"the place :{name} has the name of a port", ("sql",), kind="name", fix="rename it")
        ports[name] = Port(name, ANY, True, help="a value that is bound")
    return ports


def read_statement(arguments: Mapping[str, object], subject: Subject) -> Statement:
    """The statement and its values. Raises `ValueProblem`."""
    sql = read_under("sql", lambda: read_sql(arguments["sql"]))
    crosses = _refuse_tenants(sql, subject, read_switch(arguments, "cross_tenant"))
    declared = read_under("types", lambda: declared_types(arguments["types"])) if "types" in arguments else {}
    for name in declared:
        if name not in sql.names:
            raise ValueProblem(f"the statement has no place :{name}", ("types", name), key=True, kind="name")
    values: dict[str, object] = {}
    kinds: dict[str, ValueType] = {}
    for name in sql.names:
        raw = arguments.get(name)
        known = raw.type if isinstance(raw, (Connection, Delivered)) and raw.type is not None else ANY
        kinds[name] = declared.get(name, known)
        if kinds[name].kind in ("rows", "record", "secret"):
            raise ValueProblem(f"a {kinds[name].kind} cannot be bound", (name,), kind="connection")
        if kinds[name].kind == "decimal" and name not in declared:
            why = "SQLite keeps decimals as whole numbers of their smallest unit, so the scale must be the column's"
            fix = f"types: {{{name}: {{type: decimal, precision: 12, scale: 2}}}}"
            raise ValueProblem(f"the scale of {name!r} is not declared", (name,), kind="shape", why=why, fix=fix)
        values[name] = read_under(name, lambda name=name, raw=raw: parse_value(kinds[name], raw))  # type: ignore[misc]
    return Statement(sql, values, kinds, crosses)


def _refuse_tenants(sql: SqlText, subject: Subject, is_cross_tenant: bool) -> tuple[str, ...]:
    """Refuse what could reach the rows of other tenants; gives the tables of which the author says that it shall. Where
    the database keeps tenants apart itself, their tables may be named; what dfrun keeps beside them, and what could
    change who is bound by the policies, may not."""
    tenanted = [model for model in subject.models.values() if model.is_tenanted]
    crosses = tuple(model.table for model in tenanted if not model.is_row_secured and model.table in sql.tables)
    if is_cross_tenant and not crosses:
        why = "it names no table of tenants, or the database keeps them apart itself"
        raise ValueProblem("there is nothing to cross", ("cross_tenant",), kind="shape", why=why, fix="leave it out")
    if not tenanted:
        return ()
    named = {*sql.words, *(name.lower() for name in sql.quoted)}
    for model in tenanted:
        if model.table in crosses and not is_cross_tenant:
            why = "a text of your own carries no tenant, so it would reach the rows of all of them"
            fix = f"use the nodes of {model.name}, tenancy: database in dfrun.yaml, or cross_tenant: true"
            raise ValueProblem(f"{model.table!r} is a table of tenants", ("sql",), kind="shape", why=why, fix=fix)
    for name in sorted(named):
        if name.startswith(("dfrun", "_dfrun")):
            why = "dfrun keeps there what it did for all tenants"
            raise ValueProblem(f"{name!r} is not for a step", ("sql",), kind="shape", why=why, fix="leave it out")
        if name in _ASKS or name.endswith(_ASKS_ENDINGS):
            why = "it runs a text that nobody has looked at"
            raise ValueProblem(f"{name!r} is not for a step", ("sql",), kind="shape", why=why, fix="ask directly")
    if any(model.is_row_secured for model in tenanted) and sql.words[0] not in _OF_ROWS:
        why = "policies are about rows: they hold for no other statement"
        fix = "one of: " + ", ".join(word.upper() for word in _OF_ROWS)
        raise ValueProblem(f"{sql.words[0].upper()} is not for a step", ("sql",), kind="shape", why=why, fix=fix)
    return crosses


async def note_crossing(statement: Statement, context: Context) -> None:
    """Put it into the trail of changes that a statement reaches the rows of all tenants."""
    if statement.crosses:
        await context.access.say("cross_tenant", context.step_id, {"tables": ", ".join(statement.crosses)})


class SqlQuery:
    """Takes a statement and the values of its places; gives `rows` and `count`, or the one row."""

    name = "sql.query"
    summary = "Read rows by a SELECT of your own; values are bound, never part of the text."
    uses_database = True
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return sql_ports((SQL, COLUMNS, TYPES, ONE_ROW, CROSS_TENANT), arguments)

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        from dataclasses import replace

        statement = read_statement(arguments, subject)
        word = writes(statement.sql)
        if word:
            what = f"{word.upper()} is no reading"
            raise ValueProblem(what, ("sql",), kind="shape", why="sql.query changes nothing", fix="use sql.execute")
        columns = None
        if "columns" in arguments:
            columns = read_under("columns", lambda: declared_types(arguments["columns"]))
        is_one_row = read_switch(arguments, "one_row")
        row = ValueType("record", fields=columns)
        rows = ValueType("record", fields={"rows": ValueType("rows", fields=columns), "count": ValueType("integer")})
        return Checked(row if is_one_row else rows, replace(statement, columns=columns, is_one_row=is_one_row))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Statement)
        await note_crossing(parsed, context)
        names, batches = await context.access.ask_sql(
            parsed.sql, parsed.values, parsed.kinds, parsed.columns, parsed.crosses
        )
        if parsed.columns is not None and set(names) != set(parsed.columns):
            what = f"the statement gives {', '.join(names)}; declared are {', '.join(parsed.columns)}"
            raise StepError(Problem("DF563", what, None, "", "name the columns in the statement: select price as cost"))
        kept = SpooledRows(names)
        async for rows in batches:
            kept.append(Batch(names, _typed(rows, names, parsed.columns)))
            context.progress(len(rows))
        if not parsed.is_one_row:
            return {"rows": kept, "count": kept.count}
        if kept.count != 1:
            what = f"one row is wanted, the statement gives {kept.count:,}"
            raise StepError(Problem("DF563", what, None, "one_row says so"), "not_found" if not kept.count else "error")
        return {name: value async for batch in kept.batches() for name, value in zip(names, batch.rows[0], strict=True)}


def _typed(
    rows: list[tuple[object, ...]], names: tuple[str, ...], columns: Mapping[str, ValueType] | None
) -> list[tuple[object, ...]]:
    if columns is None:
        return rows
    kinds = [columns[name] for name in names]
    typed = []
    for row in rows:
        values = []
        for name, kind, value in zip(names, kinds, row, strict=True):
            try:
                values.append(deliver(kind, value))
            except ValueProblem as problem:
                raise StepError(Problem("DF563", f"column {name}: {problem.what}", None, "columns says so")) from None
        typed.append(tuple(values))
    return typed


KIND = SqlQuery()
