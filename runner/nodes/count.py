"""`M.count`: how many rows a filter finds."""

from __future__ import annotations

from collections.abc import Mapping

from runner import query
from runner.nodes.arguments import FILTER, deleted_ports, filter_of, model_of, read_deleted
from runner.nodes.base import Checked, Context, Subject
from schemas.nodes import Port
from schemas.types import ValueType

OUTPUT = ValueType("record", fields={"count": ValueType("integer")})


class Count:
    """Takes a filter, gives `count`."""

    name = "count"
    summary = "Count the rows that a filter finds."
    uses_database = True
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {"filter": FILTER} | deleted_ports(model_of(subject))

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        return Checked(OUTPUT, query.Count(model, filter_of(arguments, model), read_deleted(arguments)))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, query.Count)
        rows = await context.access.fetch(parsed)
        return {"count": rows[0][0]}


KIND = Count()
