"""`M.list`: the rows a filter finds, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.data.rows import Batch, SpooledRows
from runner.evaluate import value_at
from runner.nodes.arguments import (
    FILTER,
    deleted_ports,
    field_types,
    filter_of,
    model_of,
    read_deleted,
    read_ports,
    read_under,
    refuse_sealed_names,
)
from runner.nodes.base import Checked, Context, Subject
from runner.query import Deleted, Read
from schemas.cursors import END, cursor_type, parse_after
from schemas.filters import Filter, Order, parse_order_by
from schemas.nodes import Port
from schemas.paths import find_path
from schemas.shapes import ModelShape
from schemas.types import INTEGER_MAX, ValueProblem, ValueType

if TYPE_CHECKING:
    from schemas.searches import Search

NAMES = ValueType("list", items=ValueType("string"))


@dataclass(frozen=True, slots=True)
class Listing:
    """What to list. `limit`, `offset` and `after` may be connections until their values are there."""

    model: ModelShape
    where: Filter
    orders: tuple[Order, ...]
    limit: object
    offset: object
    fields: tuple[str, ...]
    deleted: Deleted
    after: object = None
    search: Search | None = None


class ListRows:
    """Takes a filter, an order and a page, gives `rows`, `count` and the cursor of the `next` page."""

    name = "list"
    summary = "List the rows that a filter finds. Rows that tie follow the primary key, so pages never overlap."
    uses_database = True
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {
            "filter": FILTER,
            "search": Port("search", ValueType("string"), help="words that occur in the fields of `text_search`"),
            "order_by": Port(
                "order_by", NAMES, help="fields, `-` in front for descending", shape="order_by", literal=True
            ),
            "limit": Port("limit", ValueType("integer"), help="at most so many rows; 0 gives none"),
            "offset": Port("offset", ValueType("integer"), help="rows to pass over"),
            "after": Port(
                "after",
                ValueType("record", True),
                shape="after",
                help="only rows that come later than the one with these values, such as `next` of another page",
            ),
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
        words = read_under("search", lambda: _search_of(values, model))
        fields = values.get("fields", list(types))
        assert isinstance(fields, list)
        if not fields:
            raise ValueProblem("fields wants at least one", ("fields",), kind="shape", fix="leave it out for all")
        for index, name in enumerate(fields):
            if name not in types:
                fix = "one of: " + ", ".join(types)
                raise ValueProblem(f"{model.name} has no field {name!r}", ("fields", index), kind="name", fix=fix)
            if name in fields[:index]:
                raise ValueProblem(f"{name!r} stands twice", ("fields", index), kind="shape")
        orders = read_under("order_by", lambda: parse_order_by(arguments.get("order_by", []), types))
        read_under("order_by", lambda: refuse_sealed_names([o.field for o in orders], model, "an order"))
        missing = tuple(Order(k, False) for k in model.primary_key if all(o.field != k for o in orders))
        orders += missing
        cursor = None
        if "after" in arguments:
            cursor = read_under("after", lambda: parse_after(arguments["after"], orders, types))
        listing = Listing(
            model, filter_of(arguments, model), orders, values.get("limit"), values.get("offset"), tuple(fields),
            read_deleted(arguments), cursor, words,
        )  # fmt: skip
        rows = ValueType("rows", fields={name: types[name] for name in fields})
        members = {"rows": rows, "count": ValueType("integer"), "next": cursor_type(orders, types)}
        return Checked(ValueType("record", fields=members), listing)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Listing)
        kept = SpooledRows(parsed.fields)
        if parsed.after is END:
            return {"rows": kept, "count": 0, "next": None}
        limit, offset = (n if isinstance(n, int) else None for n in (parsed.limit, parsed.offset))
        paths = {each.field: find_path(each.field, parsed.model.types)[0] for each in parsed.orders}
        columns = tuple(dict.fromkeys((*parsed.fields, *(path.column for path in paths.values()))))
        read = Read(
            parsed.model, columns, parsed.where, parsed.orders, _one_more(limit), offset,
            deleted=parsed.deleted, after=parsed.after if isinstance(parsed.after, tuple) else None,
            search=parsed.search,
        )  # fmt: skip
        last: tuple[object, ...] = ()
        more = False
        async for found in context.access.stream(read):
            # one row more than the page tells whether there is another
            more = limit is not None and kept.count + len(found) > limit
            rows = found[: limit - kept.count] if more and limit is not None else found
            kept.append(Batch(parsed.fields, [row[: len(parsed.fields)] for row in rows]))
            context.progress(len(rows))
            last = rows[-1] if rows else last
        values = dict(zip(columns, last, strict=False))
        place = {name: value_at(values[path.column], path.steps) for name, path in paths.items()} if more else None
        return {"rows": kept, "count": kept.count, "next": place}


def _search_of(values: Mapping[str, object], model: ModelShape) -> Search | None:
    """The words to look for; None without any, and until a connection's text is there."""
    if "search" not in values:
        return None
    from schemas.searches import parse_search

    if model.text_search is None:
        texts = [name for name, field in model.fields.items() if field.type.kind in ("string", "text")]
        fix = f"declare {model.name} with postgresql: {{text_search: [{', '.join(texts[:3]) or '…'}]}}"
        why = "words are found by an index, which the model declares; $regex and $contains need none"
        raise ValueProblem(f"{model.name} has no text_search", kind="name", why=why, fix=fix)
    text = values["search"]
    return parse_search(text) if isinstance(text, str) else None


def _one_more(limit: int | None) -> int | None:
    return min(limit + 1, INTEGER_MAX) if limit else limit


KIND = ListRows()
