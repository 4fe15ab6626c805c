"""`sql.execute`: a change by a statement of the user's own."""

from __future__ import annotations

from collections.abc import Mapping

from runner.nodes.base import Checked, Context, Subject
from runner.nodes.sql_query import CROSS_TENANT, SQL, TYPES, Statement, note_crossing, read_statement, sql_ports
from schemas.nodes import Port
from schemas.sqltext import writes
from schemas.types import ValueProblem, ValueType


class SqlExecute:
    """Takes a statement and the values of its places; gives how many rows it changed."""

    name = "sql.execute"
    summary = "Change rows by a statement of your own, in the step's transaction; values are bound."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return sql_ports((SQL, TYPES, CROSS_TENANT), arguments)

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        statement = read_statement(arguments, subject)
        if not writes(statement.sql):
            raise ValueProblem("the statement changes nothing", ("sql",), kind="shape", fix="use sql.query")
        return Checked(ValueType("record", fields={"count": ValueType("integer")}), statement)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Statement)
        await note_crossing(parsed, context)
        count = await context.access.execute_sql(parsed.sql, parsed.values, parsed.kinds, parsed.crosses)
        count = max(0, count)
        context.progress(count)
        return {"count": count}


KIND = SqlExecute()
