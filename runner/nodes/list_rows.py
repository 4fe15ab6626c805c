"""`M.list`: the rows a filter finds, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.nodes.arguments import (
    FILTER,
    deleted_ports,
    field_types,
    filter_of,
    model_of,
    read_deleted,
    read_ports,
    read_under,
)
from runner.nodes.base import Checked, Context, Subject
from runner.query import Deleted, Read
from runner.rows import Batch, SpooledRows
from schemas.filters import Filter, Order, parse_order_by
from schemas.nodes import Port
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType

NAMES = ValueType("list", items=ValueType("string"))


@dataclass(frozen=True, slots=True)
class Listing:
    """What to list. `limit` and `offset` may be connections until their values are there."""

    model: ModelShape
    where: Filter
    orders: tuple[Order, ...]
    limit: object
    offset: object
    fields: tuple[str, ...]
    deleted: Deleted


class ListRows:
    """Takes a filter, an order and a page, gives `rows` and `count`."""

    name = "list"
    summary = "List the rows that a filter finds. Rows that tie follow the primary key, so pages never overlap."
    uses_database = True
    writes = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {
            "filter": FILTER,
            "order_by": Port(
                "order_by", NAMES, help="fields, `-` in front for descending", shape="order_by", literal=True
            ),
            "limit": Port("limit", ValueType("integer"), help="at most so many rows; 0 gives none"),
            "offset": Port("offset", ValueType("integer"), help="rows to pass over"),
            "fields": Port("fields", NAMES, help="only these fields", literal=True),
        } | deleted_ports(model_of(subject))

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        model = model_of(subject)
        values = read_ports(self.ports(subject, arguments), arguments)
        types = field_types(model)
        for name in ("limit", "offset"):
            value = values.get(name)
            if isinstance(value, int) and value < 0:
                raise ValueProblem("wants a whole number of at least 0", (name,))
        fields = values.get("fields", list(types))
        assert isinstance(fields, list)
        for index, name in enumerate(fields):
            if name not in types:
                fix = "one of: " + ", ".join(types)
                raise ValueProblem(f"{model.name} has no field {name!r}", ("fields", index), kind="name", fix=fix)
        orders = read_under("order_by", lambda: parse_order_by(arguments.get("order_by", []), types))
        missing = tuple(Order(k, False) for k in model.primary_key if all(o.field != k for o in orders))
        listing = Listing(
            model,
            filter_of(arguments, model),
            orders + missing,
            values.get("limit"),
            values.get("offset"),
            tuple(fields),
            read_deleted(arguments),
        )
        rows = ValueType("rows", fields={name: types[name] for name in fields})
        return Checked(ValueType("record", fields={"rows": rows, "count": ValueType("integer")}), listing)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Listing)
        limit, offset = (n if isinstance(n, int) else None for n in (parsed.limit, parsed.offset))
        read = Read(parsed.model, parsed.fields, parsed.where, parsed.orders, limit, offset, deleted=parsed.deleted)
        kept = SpooledRows(parsed.fields)
        async for rows in context.access.stream(read):
            kept.append(Batch(parsed.fields, rows))
            context.progress(len(rows))
        return {"rows": kept, "count": kept.count}


KIND = ListRows()
