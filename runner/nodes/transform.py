"""`rows.transform`: SQL over the rows of other steps, by an embedded engine that sees nothing else."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.data.rows import ROWS_PER_BATCH, Batch, Rows, SpooledRows
from runner.data.writing import rows_of
from runner.errors import Problem, StepError, listed
from runner.nodes.arguments import read_under
from runner.nodes.arrow import arrow_table, rows_of_table
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.extras import is_missing, wants
from runner.nodes.parquet_write import column_types
from runner.nodes.textfile import read_switch
from schemas.nodes import Port
from schemas.parsing import deliver
from schemas.sqltext import read_sql
from schemas.types import Connection, Delivered, ValueProblem, ValueType

if TYPE_CHECKING:
    import duckdb

SQL = Port("sql", ValueType("text"), True, literal=True, help="one SELECT in DuckDB's SQL; each table in it is a port")
ONE_ROW = Port("one_row", ValueType("boolean"), default=False, literal=True, help="the value is the one row, not rows")
NULLABLE = Port(
    "nullable", ValueType("list", items=ValueType("string")), literal=True, shape="field_list",
    help="columns that may be null beside those that bear the name of a nullable one",
)  # fmt: skip
TABLE = "rows that the statement calls by this name"
_SETTINGS = {
    "enable_external_access": "false", "python_enable_replacements": "false", "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false", "memory_limit": "512MB", "threads": "2",
}  # fmt: skip
"""No file, no network, no variable of this process; what outgrows the memory goes to a temporary file of the engine."""


@dataclass(frozen=True, slots=True)
class Transform:
    """The statement, the rows it is about (None before the run), and what it gives (None: not known)."""

    sql: str
    tables: Mapping[str, Rows | None]
    types: Mapping[str, Mapping[str, ValueType]]
    output: Mapping[str, ValueType] | None
    is_one_row: bool


class RowsTransform:
    """Takes a statement and a port for each table in it; gives `rows` and `count`, or the one row."""

    name = "rows.transform"
    summary = "SQL over the rows of other steps; its columns are typed before the run (extra `transform`)."
    uses_database = False
    writes = False
    is_repeatable = False
    extra = "transform"

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        ports = {port.name: port for port in (SQL, ONE_ROW, NULLABLE)}
        if "sql" not in arguments:
            return ports
        sql = read_under("sql", lambda: read_sql(arguments["sql"]))
        # which of its words are tables the engine knows; a word that nobody connects stays a word
        names = re.findall(r"[A-Za-z_]\w*", str(arguments["sql"]))
        named = {n: Port(n, ValueType("rows"), help=TABLE) for n in names if n.lower() in sql.words and n not in ports}
        return ports | named

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        tables: dict[str, Rows | None] = {}
        types: dict[str, Mapping[str, ValueType]] = {}
        for name in [name for name in arguments if name not in ("sql", "one_row", "nullable")]:
            tables[name], types[name] = read_under(name, lambda name=name: _table(arguments[name]))  # type: ignore[misc]
        sql, is_one_row = str(arguments["sql"]).strip().rstrip(";"), read_switch(arguments, "one_row")
        nullable = _nullable(arguments.get("nullable", []), types)
        columns = None
        if not is_missing("transform"):
            columns = read_under("sql", lambda: result_types(sql, types, nullable))
            for index, name in enumerate(arguments.get("nullable", [])):  # type: ignore[arg-type]
                if name not in columns:
                    fix = "one of: " + ", ".join(columns)
                    raise ValueProblem(f"the result has no column {name!r}", ("nullable", index), kind="name", fix=fix)
        row = ValueType("record", fields=columns)
        rows = ValueType("record", fields={"rows": ValueType("rows", fields=columns), "count": ValueType("integer")})
        return Checked(row if is_one_row else rows, Transform(sql, tables, types, columns, is_one_row))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Transform)
        wants(self)
        assert parsed.output is not None
        import asyncio

        columns = tuple(parsed.output)
        kept = SpooledRows(columns)
        with tempfile.TemporaryDirectory(prefix="dfrun-") as folder, _engine(Path(folder)) as engine:
            _create(engine, parsed.types)
            for name, rows in parsed.tables.items():
                assert rows is not None
                await _fill(engine, name, rows, parsed.types[name])
            try:
                reader = await asyncio.to_thread(_ask, engine, parsed.sql)
                while (batch := await asyncio.to_thread(next, reader, None)) is not None:
                    kept.append(Batch(columns, _judged(rows_of_table(batch), parsed.output)))
                    context.progress(batch.num_rows)
            except asyncio.CancelledError:
                engine.interrupt()
                raise
        if not parsed.is_one_row:
            return {"rows": kept, "count": kept.count}
        if kept.count != 1:
            what = f"one row is wanted, the statement gives {kept.count:,}"
            raise StepError(Problem("DF563", what, None, "one_row says so"))
        return {
            name: value async for batch in kept.batches() for name, value in zip(columns, batch.rows[0], strict=True)
        }


def _table(raw: object) -> tuple[Rows | None, Mapping[str, ValueType]]:
    types = column_types(raw)
    if isinstance(raw, Connection) and raw.type.kind not in ("rows", "list"):
        raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted rows", kind="connection")
    if not isinstance(raw, (Connection, Delivered)):
        raise ValueProblem("rows arrive by a connection", kind="shape", fix="inputs: {name: step.rows}")
    if types is None and is_missing("transform"):
        return None, {}  # what another transform gives is not known without the engine, and nothing runs
    if types is None:
        why = "the statement is checked before the run"
        raise ValueProblem("the columns of these rows are not known", why=why, fix="declare them where the rows arise")
    for name, kind in types.items():
        if kind.kind in ("any", "record", "rows"):
            raise ValueProblem(f"column {name!r} is {kind}; a column has a type of its own", kind="connection")
    return (None if isinstance(raw, Connection) else rows_of(raw.value, tuple(types))), types


def _nullable(raw: object, types: Mapping[str, Mapping[str, ValueType]]) -> set[str]:
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise ValueProblem("wants a list of columns", ("nullable",), kind="shape")
    return {*map(str, raw), *(n for columns in types.values() for n, kind in columns.items() if kind.nullable)}


# --- the engine ---------------------------------------------------------------------------------------------------


@contextmanager
def _engine(folder: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An engine of its own, shut off from files, network and this process. folder: where it may keep what is large."""
    import duckdb

    settings: dict[str, Any] = dict(_SETTINGS)
    if folder is not None:
        settings["temp_directory"] = str(folder / "spill")
    engine = duckdb.connect(str(folder / "rows.duckdb") if folder is not None else ":memory:", config=settings)
    try:
        engine.execute("SET TimeZone = 'UTC'")
        engine.execute("SET lock_configuration = true")
        yield engine
    finally:
        engine.close()


def _create(engine: duckdb.DuckDBPyConnection, types: Mapping[str, Mapping[str, ValueType]]) -> None:
    for table, columns in types.items():
        declared = ", ".join(f"{_quoted(name)} {_engine_type(kind)}" for name, kind in columns.items())
        engine.execute(f"CREATE TABLE {_quoted(table)} ({declared})")


async def _fill(engine: duckdb.DuckDBPyConnection, table: str, rows: Rows, types: Mapping[str, ValueType]) -> None:
    at = [rows.columns.index(name) for name in types]
    names = ", ".join(map(_quoted, types))

    import asyncio

    def add(values: list[list[object]]) -> None:
        engine.register("dfrun_batch", arrow_table(list(types), list(types.values()), values))
        engine.execute(f"INSERT INTO {_quoted(table)} SELECT {names} FROM dfrun_batch")
        engine.unregister("dfrun_batch")

    async for batch in rows.batches():
        await asyncio.to_thread(add, [[row[index] for index in at] for row in batch.rows])


def _ask(engine: duckdb.DuckDBPyConnection, sql: str) -> Iterator[Any]:
    import duckdb

    try:
        reader: Iterator[Any] = iter(engine.sql(sql).to_arrow_reader(ROWS_PER_BATCH))
        return reader
    except duckdb.Error as error:
        # its text may quote a row's values ("could not convert string 'x' to INT32")
        raise StepError(Problem("DF564", f"the statement failed: {type(error).__name__}")) from None


def _judged(rows: list[tuple[object, ...]], types: Mapping[str, ValueType]) -> list[tuple[object, ...]]:
    judged = []
    for row in rows:
        try:
            judged.append(tuple([deliver(kind, value) for kind, value in zip(types.values(), row, strict=True)]))
        except ValueProblem:
            judged.append(
                tuple(_one(name, kind, value) for (name, kind), value in zip(types.items(), row, strict=True))
            )
    return judged


def _one(name: str, kind: ValueType, value: object) -> object:
    try:
        return deliver(kind, value)
    except ValueProblem as problem:
        fix = f"coalesce(…) in the statement, or nullable: [{name}]" if value is None else ""
        raise StepError(Problem("DF564", f"column {name}: {problem.what}", None, "", fix)) from None


# --- types --------------------------------------------------------------------------------------------------------


def result_types(sql: str, types: Mapping[str, Mapping[str, ValueType]], nullable: set[str]) -> dict[str, ValueType]:
    """The columns that the statement gives, found by preparing it on empty tables. Raises `ValueProblem`."""
    import duckdb

    with _engine(None) as engine:
        try:
            _create(engine, types)
            statements = duckdb.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise ValueProblem("wants one SELECT", kind="shape", why="it asks, and changes nothing")
            found = engine.sql(sql)
        except duckdb.Error as error:
            raise _refused(error, types) from None
        columns: dict[str, ValueType] = {}
        for name, declared in zip(found.columns, map(str, found.types), strict=True):
            if name in columns:
                raise ValueProblem(f"two columns are called {name!r}", kind="shape", fix="select … as another_name")
            kind = _value_type(name, declared)
            columns[name] = kind.optional() if name in nullable else kind
    return columns


def _refused(error: Exception, types: Mapping[str, object]) -> ValueProblem:
    text = str(error).split("\n\n")[0].split("\nLINE")[0]
    first, *more = [line.strip() for line in text.splitlines() if line.strip()]
    what = first.partition(": ")[2] or first
    if "does not exist" in what and "Table with name" in what:
        table = what.partition("Table with name ")[2].partition(" ")[0]
        fix = f"inputs: {{{table}: step.rows}}" + (f"; connected are {listed(list(types))}" if types else "")
        return ValueProblem(f"nothing is connected as {table!r}", kind="name", fix=fix)
    hint = next((line for line in more if line.startswith(("Did you mean", "Candidate"))), "")
    return ValueProblem(what, kind="shape", why="the statement is prepared on empty tables of these types", fix=hint)


def _engine_type(kind: ValueType) -> str:
    match kind.kind:
        case "integer":
            return "BIGINT"
        case "float":
            return "DOUBLE"
        case "decimal":
            return f"DECIMAL({min(38, kind.precision or 38)},{kind.scale if kind.scale is not None else 9})"
        case "boolean" | "date" | "time" | "uuid":
            return kind.kind.upper()
        case "datetime":
            return "TIMESTAMPTZ"
        case "bytes":
            return "BLOB"
        case "json" | "list":
            return "JSON"
        case _:
            return "VARCHAR"


_ENGINE_TYPES = {
    "VARCHAR": "text", "BOOLEAN": "boolean", "DATE": "date", "TIME": "time", "UUID": "uuid", "BLOB": "bytes",
    "JSON": "json", "DOUBLE": "float", "FLOAT": "float",
} | dict.fromkeys(
    ["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"], "integer"
)  # fmt: skip


def _value_type(name: str, declared: str) -> ValueType:
    if declared.startswith("DECIMAL("):
        precision, scale = map(int, declared[len("DECIMAL(") : -1].split(","))
        return ValueType("decimal", precision=precision, scale=scale)
    if declared.startswith("TIMESTAMP"):
        return ValueType("datetime")
    if declared.startswith("ENUM"):
        return ValueType("text")
    if declared.endswith("[]"):
        return ValueType("list", items=_value_type(name, declared[:-2]).optional())
    if declared not in _ENGINE_TYPES:
        fix = f"cast it: {name}::varchar, or to_json({name})"
        raise ValueProblem(f"column {name!r} is {declared}, which no field has", kind="shape", fix=fix)
    return ValueType(_ENGINE_TYPES[declared])  # type: ignore[arg-type]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


KIND = RowsTransform()
