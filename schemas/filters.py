"""Filters, updates and orders as small typed trees. Reads them from arguments; the SQL is made elsewhere.

Every operand is judged by the type of its field while it is read, so that whatever a file shows is refused before a
run, and whatever a connection delivers is refused when its node starts, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from schemas.base import Scalar
from schemas.patterns import parse_ilike, parse_pattern
from schemas.types import Connection, Delivered, ValueProblem, ValueType, parse_value, widens

Comparison = Literal[
    "$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$exists", "$like", "$ilike", "$regex", "$contains", "$startswith",
    "$endswith", "$mod",
]  # fmt: skip
_ORDERED = ("string", "text", "integer", "float", "decimal", "date", "time", "datetime", "enum")
_TEXTS = ("string", "text", "enum")
_NUMBERS = ("integer", "float", "decimal")
_BRANCHES = {"$and": "and", "$or": "or", "$nor": "nor"}
_DEEPEST = 50
OPERATORS = (
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$between",
    "$in",
    "$nin",
    "$exists",
    "$like",
    "$ilike",
    "$regex",
    "$contains",
    "$startswith",
    "$endswith",
    "$mod",
    "$not",
)


@dataclass(frozen=True, slots=True)
class Compare:
    """One field against one operand; `operand` may be a `Connection` until the value is there."""

    field: str
    operator: Comparison
    operand: object


@dataclass(frozen=True, slots=True)
class Not:
    """The exact complement of its inside: rows with null are in it."""

    inside: Filter


@dataclass(frozen=True, slots=True)
class All:
    """True where every part is; without parts, always."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True where one part is."""

    parts: tuple[Filter, ...]


Filter = Compare | Not | All | AnyOf


@dataclass(frozen=True, slots=True)
class Order:
    """One field to sort by."""

    field: str
    is_descending: bool


def parse_filter(raw: object, fields: Mapping[str, ValueType], depth: int = 0) -> Filter:
    """The filter that `raw` (a tree of literals, connections and delivered values) stands for.

    Raises `ValueProblem` whose path leads to the part at fault.
    """
    if depth > _DEEPEST:
        raise ValueProblem(f"a filter may be nested {_DEEPEST} deep", kind="shape")
    if not isinstance(raw, Mapping):
        raise ValueProblem("a filter is a mapping of fields to conditions", kind="shape")
    parts: list[Filter] = []
    for key, value in raw.items():
        try:
            if key in _BRANCHES:
                parts.append(_branches(_BRANCHES[key], value, fields, depth))
            elif key == "$not":
                parts.append(Not(parse_filter(_filled(value, key), fields, depth + 1)))
            elif key.startswith("$"):
                raise _unknown_operator(key, ("$and", "$or", "$nor", "$not"))
            else:
                parts.append(_conditions(key, _field(key, fields), value, depth))
        except ValueProblem as problem:
            raise problem.under(key) from None
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _branches(word: str, raw: object, fields: Mapping[str, ValueType], depth: int) -> Filter:
    if not isinstance(raw, list) or not raw:
        raise ValueProblem(f"${word} wants a list of filters that is not empty", kind="shape")
    parts = []
    for index, item in enumerate(raw):
        try:
            parts.append(parse_filter(item, fields, depth + 1))
        except ValueProblem as problem:
            raise problem.under(index) from None
    if word == "and":
        return All(tuple(parts))
    return AnyOf(tuple(parts)) if word == "or" else Not(AnyOf(tuple(parts)))


def _field(name: str, fields: Mapping[str, ValueType]) -> ValueType:
    if name not in fields:
        raise ValueProblem(f"there is no field {name!r}", key=True, kind="name", fix=_nearest(name, tuple(fields)))
    return fields[name]


def _conditions(name: str, kind: ValueType, raw: object, depth: int) -> Filter:
    """What stands behind a field: operators, or a value that it equals."""
    if not isinstance(raw, Mapping) or set(raw) == {"$literal"}:
        if isinstance(raw, list) and kind.kind not in ("json", "list"):
            raise ValueProblem("wants one value, got a list", kind="shape", fix="did you mean {$in: [...]}?")
        return Compare(name, "$eq", _operand(kind, raw, null=True))
    if not any(key.startswith("$") for key in raw):
        raise ValueProblem("wants operators or a value, got a mapping", kind="shape")
    parts: list[Filter] = []
    if "$options" in raw and "$regex" not in raw:
        raise ValueProblem("$options stands beside $regex only", ("$options",), key=True, kind="shape")
    for operator, operand in raw.items():
        try:
            if operator == "$regex":
                parts.append(_pattern(name, kind, operand, raw.get("$options", Scalar(""))))
            elif operator != "$options":
                parts.append(_condition(name, kind, operator, operand, depth))
        except ValueProblem as problem:
            raise problem.under(operator) from None
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _condition(name: str, kind: ValueType, operator: str, raw: object, depth: int) -> Filter:
    match operator:
        case "$eq":
            return Compare(name, "$eq", _operand(kind, raw, null=True))
        case "$ne":
            return Not(Compare(name, "$eq", _operand(kind, raw, null=True)))
        case "$gt" | "$gte" | "$lt" | "$lte":
            _wants(kind, operator, _ORDERED)
            return Compare(name, operator, _operand(kind, raw))
        case "$between":
            _wants(kind, operator, _ORDERED)
            if not isinstance(raw, list) or len(raw) != 2:
                raise ValueProblem("$between wants [low, high]", kind="shape")
            low, high = _operands(kind, raw, null=False)
            return All((Compare(name, "$gte", low), Compare(name, "$lte", high)))
        case "$in":
            return _membership(name, kind, raw)
        case "$nin":
            return Not(_membership(name, kind, raw))
        case "$exists":
            there = Compare(name, "$exists", True)
            value = parse_value(ValueType("boolean"), raw)
            if isinstance(value, Connection):
                return Compare(name, "$exists", value)
            return there if value else Not(there)
        case "$like" | "$ilike":
            _wants(kind, operator, _TEXTS)
            pattern = parse_value(ValueType("string"), raw)
            if isinstance(pattern, str) and (len(pattern) - len(pattern.rstrip("\\"))) % 2:
                raise ValueProblem(f"{operator}: the pattern ends in a lone backslash", fix="write two")
            is_known = isinstance(pattern, str) and operator == "$ilike"
            return Compare(name, operator, parse_ilike(str(pattern)) if is_known else pattern)
        case "$contains" | "$startswith" | "$endswith":
            _wants(kind, operator, _TEXTS)
            return Compare(name, operator, parse_value(ValueType("string"), raw))
        case "$mod":
            _wants(kind, operator, ("integer",))
            return Compare(name, operator, _division(raw))
        case "$not":
            return Not(_conditions(name, kind, _filled(raw, operator), depth))
        case _:
            raise _unknown_operator(operator, OPERATORS)


def _pattern(name: str, kind: ValueType, raw: object, options: object) -> Filter:
    """`$regex`; with a connection for the pattern or its options, both stay as they are until the values are there."""
    _wants(kind, "$regex", _TEXTS)
    text, flags = parse_value(ValueType("string"), raw), parse_value(ValueType("string"), options)
    if isinstance(text, str) and isinstance(flags, str):
        return Compare(name, "$regex", parse_pattern(text, flags))
    return Compare(name, "$regex", (text, flags))


def _division(raw: object) -> object:
    if isinstance(raw, Delivered) and isinstance(raw.value, (list, tuple)):
        raw = [Delivered(item) for item in raw.value]
    if not isinstance(raw, (list, tuple)) or len(raw) != 2:
        raise ValueProblem("$mod wants [divisor, remainder]", kind="shape")
    divisor, remainder = _operands(ValueType("integer"), raw, null=False)
    if divisor == 0:
        raise ValueProblem("$mod: a division by 0", (0,))
    return divisor, remainder


def _filled(raw: object, operator: str) -> Mapping[str, object]:
    if not isinstance(raw, Mapping) or not raw:
        raise ValueProblem(f"{operator} wants a mapping that is not empty", kind="shape")
    return raw


def _membership(name: str, kind: ValueType, raw: object) -> Filter:
    """`$in`. A null in the list stays in it; whoever makes the SQL gives it its meaning."""
    if isinstance(raw, Connection):
        wanted = ValueType("list", items=kind.optional())
        if not widens(raw.type, wanted):
            raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted {wanted}", kind="connection")
        return Compare(name, "$in", raw)
    items = raw.value if isinstance(raw, Delivered) else raw
    if not isinstance(items, (list, tuple)):
        raise ValueProblem("$in and $nin want a list", kind="shape")
    if isinstance(raw, Delivered):
        items = [Delivered(item) for item in items]
    return Compare(name, "$in", _operands(kind, items, null=True))


def _operands(kind: ValueType, raw: object, null: bool) -> tuple[object, ...]:
    assert isinstance(raw, (list, tuple))
    values = []
    for index, item in enumerate(raw):
        try:
            values.append(_operand(kind, item, null=null))
        except ValueProblem as problem:
            raise problem.under(index) from None
    return tuple(values)


def _operand(kind: ValueType, raw: object, null: bool = False) -> object:
    if isinstance(raw, Mapping) and kind.kind != "json" and set(raw) != {"$literal"}:
        raise ValueProblem(f"wants {kind}, got a mapping", kind="shape")
    if kind.kind == "enum" and isinstance(raw, Connection) and raw.type.kind in ("string", "text"):
        return raw  # judged when the value is there
    return parse_value(kind.optional() if null else kind.required(), raw, to_scale=False)


def _wants(kind: ValueType, operator: str, kinds: tuple[str, ...]) -> None:
    if kind.kind not in kinds:
        raise ValueProblem(f"{operator} does not work on {kind.kind}", key=True, kind="name")


def _unknown_operator(operator: str, known: tuple[str, ...]) -> ValueProblem:
    if operator.startswith("$"):
        return ValueProblem(
            f"there is no operator {operator!r} here", key=True, kind="name", fix=_nearest(operator, known)
        )
    return ValueProblem(f"{operator!r} stands beside operators", key=True, kind="shape")


def _nearest(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else "one of: " + ", ".join(known)


def parse_order_by(raw: object, fields: Mapping[str, ValueType]) -> tuple[Order, ...]:
    """`[-created_at, id]`. Raises `ValueProblem` for anything but names of fields, each once."""
    if not isinstance(raw, list):
        raise ValueProblem("order_by wants a list of fields", kind="shape")
    orders: list[Order] = []
    for index, item in enumerate(raw):
        name = item.removeprefix("-") if isinstance(item, str) else ""
        try:
            kind = _field(name, fields)
            if kind.kind not in (*_ORDERED, "boolean", "uuid"):
                raise ValueProblem(f"{name!r} is {kind.kind}, which has no order", kind="name")
            if any(order.field == name for order in orders):
                raise ValueProblem(f"{name!r} stands twice", kind="shape")
        except ValueProblem as problem:
            problem.key = False
            raise problem.under(index) from None
        orders.append(Order(name, item.startswith("-") if isinstance(item, str) else False))
    return tuple(orders)
