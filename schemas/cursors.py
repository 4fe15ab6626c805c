"""Cursors of listings: the values of a row in the order of its listing, after which the next page begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.filters import Order
from schemas.parsing import parse_value
from schemas.paths import find_path, nearest
from schemas.types import Connection, Delivered, ValueProblem, ValueType, widens

END = object()
"""The cursor of a listing whose last page was seen: nothing comes after it."""


def cursor_type(orders: Sequence[Order], fields: Mapping[str, ValueType]) -> ValueType:
    """What `next` gives and `after` takes: a value for each field of the order, null after the last page."""
    return ValueType("record", True, fields={order.field: find_path(order.field, fields)[1] for order in orders})


def parse_after(raw: object, orders: Sequence[Order], fields: Mapping[str, ValueType]) -> object:
    """The values of the row to go on after, one for each order; END for null, a connection until its value is there.

    A missing value is never taken for null: what a mistyped name left out would begin the listing anew.
    """
    kind = cursor_type(orders, fields)
    assert kind.fields is not None
    if isinstance(raw, Connection):
        if not widens(raw.type, kind):
            raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted {kind}", kind="connection")
        return raw
    given = raw.value if isinstance(raw, Delivered) else raw
    if given is None:
        return END
    if not isinstance(given, Mapping):
        example = ", ".join(f"{name}: …" for name in kind.fields)
        raise ValueProblem("after wants a value for each field of the order", kind="shape", fix=f"{{{example}}}")
    for name in given:
        if name not in kind.fields:
            what = f"{name!r} is not in the order"
            raise ValueProblem(what, (name,), key=True, kind="name", fix=nearest(str(name), kind.fields))
    values: list[object] = []
    for name, wanted in kind.fields.items():
        if name not in given:
            why = "rows that tie follow the primary key, which is part of every order"
            raise ValueProblem(f"after wants a value for {name!r}, too", kind="shape", why=why, fix=f"{name}: …")
        value = given[name]
        try:
            values.append(
                parse_value(wanted, Delivered(value) if isinstance(raw, Delivered) else value, to_scale=False)
            )
        except ValueProblem as problem:
            raise problem.under(name) from None
    return tuple(values)
