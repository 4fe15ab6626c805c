"""Conditions on JSON: columns of type json and list, and the paths into them. Kinds do not mix: a number is compared
with numbers, a text with texts, and whatever else stands at the place does not match.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from schemas.conditions import Compare, Comparison
from schemas.jsonvalues import is_number, json_value
from schemas.operands import divisor_and_remainder, items_of, text_operand
from schemas.parsing import parse_value, plain_value
from schemas.types import Connection, Delivered, ValueProblem, ValueType

_SCALARS = (
    "string", "text", "enum", "integer", "float", "decimal", "date", "time", "datetime", "uuid", "json", "any",
)  # fmt: skip


def json_condition(name: str, operator: str, raw: object) -> Compare:
    """The condition of one operator. Raises `ValueProblem` for an operand that it cannot be meant with."""
    word = cast(Comparison, operator)
    match operator:
        case "$eq":
            return Compare(name, word, json_operand(raw))
        case "$in" | "$all":
            return Compare(name, word, _listed(operator, raw))
        case "$gt" | "$gte" | "$lt" | "$lte":
            return Compare(name, word, json_bound(operator, raw))
        case "$between":
            return Compare(name, word, _bounds(raw))
        case "$contains":
            value = json_operand(raw)
            if value is None:
                raise ValueProblem("$contains wants a text or an element, got null")
            return Compare(name, word, value)
        case "$like" | "$ilike" | "$regex" | "$startswith" | "$endswith":
            return Compare(name, word, text_operand(operator, raw))
        case "$mod":
            return Compare(name, word, divisor_and_remainder(raw))
        case _:
            assert operator == "$size", operator
            length = parse_value(ValueType("integer"), raw)
            if isinstance(length, int) and length < 0:
                raise ValueProblem("$size wants a whole number of at least 0")
            return Compare(name, word, length)


def json_operand(raw: object) -> object:
    """Any JSON value. A mapping that was delivered is plain data; one that was written may hold no operators."""
    if isinstance(raw, Connection):
        if raw.type.kind in ("secret", "bytes", "rows"):
            raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted json", kind="connection")
        return raw
    if isinstance(raw, Delivered):
        return json_value(raw.value)
    refuse_operators(raw)
    return json_value(plain_value(raw))


def refuse_operators(raw: object, path: tuple[str | int, ...] = ()) -> None:
    """Raises `ValueProblem` where a written value has an operator in it."""
    if isinstance(raw, Mapping) and set(raw) != {"$literal"}:
        for key, value in raw.items():
            if key.startswith("$"):
                what = f"{key} stands where a value belongs"
                raise ValueProblem(what, (*path, key), key=True, kind="shape", fix="name the path: {profile.city: …}")
            refuse_operators(value, (*path, key))
    elif isinstance(raw, list):
        for index, value in enumerate(raw):
            refuse_operators(value, (*path, index))


def _listed(operator: str, raw: object) -> object:
    if isinstance(raw, Connection):
        if raw.type.kind not in ("list", "json", "any"):
            raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted list", kind="connection")
        return raw
    listed = items_of(raw)
    if listed is None:
        raise ValueProblem("$all wants a list" if operator == "$all" else "$in and $nin want a list", kind="shape")
    values = []
    for index, item in enumerate(listed):
        try:
            values.append(json_operand(item))
        except ValueProblem as problem:
            raise problem.under(index) from None
    return tuple(values)


def json_bound(operator: str, raw: object) -> object:
    """What a range may start or end at: a number or a text."""
    if isinstance(raw, Connection) and raw.type.kind not in _SCALARS:
        raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted a number or a text", kind="connection")
    value = json_operand(raw)
    if not isinstance(value, (Connection, str)) and not is_number(value):
        words = {bool: "true or false", list: "a list", dict: "a mapping", type(None): "null"}
        raise ValueProblem(f"{operator} wants a number or a text, got {words[type(value)]}")
    return value


def json_number(operator: str, raw: object) -> object:
    """An operand of arithmetic."""
    if isinstance(raw, Connection):
        if raw.type.kind not in ("integer", "float", "decimal", "json", "any"):
            raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted a number", kind="connection")
        return raw
    value = json_operand(raw)
    if not is_number(value):
        words = {bool: "true or false", list: "a list", dict: "a mapping", str: "text", type(None): "null"}
        raise ValueProblem(f"{operator} wants a number, got {words[type(value)]}")
    return value


def _bounds(raw: object) -> object:
    listed = items_of(raw)
    if listed is None or len(listed) != 2:
        raise ValueProblem("$between wants [low, high]", kind="shape")
    values = []
    for index, item in enumerate(listed):
        try:
            values.append(json_bound("$between", item))
        except ValueProblem as problem:
            raise problem.under(index) from None
    low, high = values
    if not isinstance(low, Connection) and not isinstance(high, Connection) and is_number(low) != is_number(high):
        raise ValueProblem("$between wants two bounds of one kind", kind="shape")
    return low, high
