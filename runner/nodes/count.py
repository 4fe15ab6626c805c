"""`M.count`: how many rows a filter finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from runner import query
from runner.nodes.arguments import FILTER, filter_of, model_of
from runner.nodes.base import Checked, Context, Subject
from schemas.filters import Filter
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueType

OUTPUT = ValueType("record", fields={"count": ValueType("integer")})


class Count:
    """Takes a filter, gives `count`."""

    name = "count"
    summary = "Count the rows that a filter finds."
    uses_database = True
    writes = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {"filter": FILTER}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        return Checked(OUTPUT, (model, filter_of(arguments, model)))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        model, where = cast("tuple[ModelShape, Filter]", parsed)
        rows = await context.access.fetch(query.Count(model, where))
        return {"count": rows[0][0]}


KIND = Count()
