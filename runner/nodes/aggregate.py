"""`M.aggregate`: counts, sums, means and extremes, of all rows or by group."""

from __future__ import annotations

from collections.abc import Mapping

from runner.data.rows import Batch, SpooledRows
from runner.nodes.arguments import (
    FILTER,
    deleted_ports,
    field_types,
    filter_of,
    model_of,
    read_deleted,
    read_under,
    refuse_sealed_names,
)
from runner.nodes.base import Checked, Context, Subject
from runner.query import Summary
from schemas.aggregates import parse_aggregate, parse_group_by
from schemas.filters import Order, parse_filter, parse_order_by
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.types import ValueProblem, ValueType

_NAMES = ValueType("list", items=ValueType("string"))
LIMIT = Port("limit", ValueType("integer"), help="at most so many rows; 0 gives none")


def read_limit(arguments: Mapping[str, object], name: str = "limit") -> object:
    """A whole number of at least 0, a connection, or None without one."""
    if name not in arguments:
        return None
    value = read_under(name, lambda: parse_value(ValueType("integer"), arguments[name]))
    if isinstance(value, int) and value < 0:
        raise ValueProblem("wants a whole number of at least 0", (name,))
    return value


class AggregateRows:
    """Takes aggregates and groups; gives one row, or `rows` and `count` when grouped."""

    name = "aggregate"
    summary = "Count, sum, average and find extremes, of all rows or by group."
    uses_database = True
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {
            "filter": FILTER,
            "group_by": Port("group_by", _NAMES, help="one result row a group", shape="group_by", literal=True),
            "aggregate": Port(
                "aggregate", ValueType("json"), True, help="names and what they count", shape="aggregate", literal=True
            ),
            "having": Port("having", ValueType("json"), help="which result rows", shape="having"),
            "order_by": Port("order_by", _NAMES, help="result columns", shape="order_by", literal=True),
            "limit": LIMIT,
        } | deleted_ports(model_of(subject))

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        fields = field_types(model)
        groups = read_under("group_by", lambda: parse_group_by(arguments.get("group_by", []), fields))
        aggregates = read_under("aggregate", lambda: parse_aggregate(arguments.get("aggregate", {}), fields, groups))
        types = {**groups, **{a.name: a.type for a in aggregates}}
        read_under("group_by", lambda: refuse_sealed_names(groups, model, "a group"))
        for each in aggregates:
            if each.field is not None and each.operator != "$count":
                named = each.field
                read_under("aggregate", lambda: refuse_sealed_names([named], model, "a result"))  # noqa: B023, it is called at once
        having = None
        if "having" in arguments:
            having = read_under("having", lambda: parse_filter(arguments["having"], types))
        orders = read_under("order_by", lambda: parse_order_by(arguments.get("order_by", []), types))
        orders += tuple(Order(g, False) for g in groups if all(o.field != g for o in orders))
        limit = read_limit(arguments)
        question = Summary(
            model, tuple(groups), aggregates, types, filter_of(arguments, model), having, orders,
            limit if isinstance(limit, int) else None, read_deleted(arguments),
        )  # fmt: skip
        if groups:
            members = {"rows": ValueType("rows", fields=types), "count": ValueType("integer")}
            return Checked(ValueType("record", fields=members), question)
        if having is not None or "limit" in arguments:
            name = "having" if having is not None else "limit"
            raise ValueProblem(f"{name} needs group_by", (name,), kind="shape", why="without groups there is one row")
        return Checked(ValueType("record", fields=types), question)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Summary)
        if not parsed.groups:
            return dict(zip(parsed.types, (await context.access.fetch(parsed))[0], strict=True))
        kept = SpooledRows(tuple(parsed.types))
        async for rows in context.access.stream(parsed):
            kept.append(Batch(kept.columns, rows))
        return {"rows": kept, "count": kept.count}


KIND = AggregateRows()
