"""Filters and orders as small typed trees. Reads them from arguments; the SQL is made elsewhere.

Every operand is judged by the type of its field while it is read, so that whatever a file shows is refused before a
run, and whatever a connection delivers is refused when its node starts, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.conditions import All, AnyOf, Compare, Comparison, Element, Filter, Not
from schemas.jsonfilters import json_condition
from schemas.operands import (
    by_value,
    divisor_and_remainder,
    element_type_fits,
    filled,
    items_of,
    read_options,
    refuse,
    text_operand,
    unknown_operator,
)
from schemas.parsing import parse_value
from schemas.paths import JSON_KINDS, checked_steps, find_path
from schemas.types import Connection, ValueProblem, ValueType

__all__ = [
    "OPERATORS", "All", "AnyOf", "Compare", "Comparison", "Element", "Filter", "Not", "Order", "parse_filter",
    "parse_order_by",
]  # fmt: skip
_ORDERED = ("string", "text", "integer", "float", "decimal", "date", "time", "datetime", "enum")
_SORTABLE = (*_ORDERED, "boolean", "uuid", *JSON_KINDS)
_TEXTS = ("string", "text", "enum")
_BRANCHES = {"$and": "and", "$or": "or", "$nor": "nor"}
DEEPEST = 50
"""So many levels of `$and`, `$or`, `$nor`, `$not` and `$elemMatch` may stand in each other."""
MOST_CONDITIONS = 5_000
"""So many comparisons a filter may have, a step of a path counting as one: each binds up to five values, and
PostgreSQL's driver stops at 32,767."""
OPERATORS = (
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$between", "$in", "$nin", "$exists", "$like", "$ilike", "$regex",
    "$contains", "$startswith", "$endswith", "$mod", "$all", "$size", "$elemMatch", "$not",
)  # fmt: skip
_JSON_ONLY = ("$all", "$size", "$elemMatch")


@dataclass(frozen=True, slots=True)
class Order:
    """One field, or one path into a JSON column, to sort by."""

    field: str
    is_descending: bool


def parse_filter(raw: object, fields: Mapping[str, ValueType]) -> Filter:
    """The filter that `raw` (a tree of literals, connections and delivered values) stands for.

    Raises `ValueProblem` whose path leads to the part at fault.
    """
    return _Reader(fields).filter(raw, 0)


class _Reader:
    """Reads one filter. `fields` is None inside an element of a JSON array, where every name is a path."""

    def __init__(self, fields: Mapping[str, ValueType] | None) -> None:
        self.fields = fields
        self.conditions = 0

    def filter(self, raw: object, depth: int) -> Filter:
        _check_depth(depth)
        if not isinstance(raw, Mapping):
            raise ValueProblem("a filter is a mapping of fields to conditions", kind="shape")
        parts: list[Filter] = []
        problems: list[ValueProblem] = []
        for key, value in raw.items():
            try:
                if key in _BRANCHES:
                    parts.append(self._branches(key, value, depth))
                elif key == "$not":
                    parts.append(Not(self.filter(filled(value, key), depth + 1)))
                elif key.startswith("$"):
                    raise unknown_operator(key, ("$and", "$or", "$nor", "$not"))
                else:
                    parts.append(self._field(key, value, depth))
            except ValueProblem as problem:
                problems.append(problem.under(key))
                self._stop_at(problem)
        refuse(problems)
        return _joined(parts)

    def _branches(self, word: str, raw: object, depth: int) -> Filter:
        if not isinstance(raw, list) or not raw:
            raise ValueProblem(f"{word} wants a list of filters that is not empty", kind="shape")
        parts, problems = [], []
        for index, item in enumerate(raw):
            try:
                parts.append(self.filter(item, depth + 1))
            except ValueProblem as problem:
                problems.append(problem.under(index))
                self._stop_at(problem)
        refuse(problems)
        if word == "$and":
            return All(tuple(parts))
        return AnyOf(tuple(parts)) if word == "$or" else Not(AnyOf(tuple(parts)))

    def _field(self, name: str, raw: object, depth: int) -> Filter:
        if self.fields is None:
            checked_steps(name, name.split("."))
            kind = ValueType("json", nullable=True)
        else:
            _, kind = find_path(name, self.fields)
        return self.conditions_of(name, kind, raw, depth)

    def conditions_of(self, name: str, kind: ValueType, raw: object, depth: int) -> Filter:
        """What stands behind a field: operators, or a value that it equals."""
        _check_depth(depth)
        is_json = kind.kind in JSON_KINDS
        is_value = not isinstance(raw, Mapping) or set(raw) == {"$literal"}
        if is_value or (is_json and not _has_operator(raw)):
            if isinstance(raw, list) and not is_json:
                raise ValueProblem("wants one value, got a list", kind="shape", fix="did you mean {$in: [...]}?")
            return self._condition(name, kind, "$eq", raw, depth)
        assert isinstance(raw, Mapping)
        if not _has_operator(raw):
            raise ValueProblem("wants operators or a value, got a mapping", kind="shape")
        if "$options" in raw and "$regex" not in raw:
            raise ValueProblem("$options stands beside $regex only", ("$options",), key=True, kind="shape")
        parts: list[Filter] = []
        problems: list[ValueProblem] = []
        for operator, operand in raw.items():
            if operator == "$options":
                continue
            try:
                if operator == "$regex":
                    operand = read_options(operand, raw)
                parts.append(self._condition(name, kind, operator, operand, depth))
            except ValueProblem as problem:
                is_flags = problem.what.startswith("$options")
                problems.append(problem.under("$options" if is_flags else operator))
                self._stop_at(problem)
        refuse(problems)
        return _joined(parts)

    def _condition(self, name: str, kind: ValueType, operator: str, raw: object, depth: int) -> Filter:
        self._count(1 + name.count("."))
        match operator:
            case "$ne":
                return Not(self._condition(name, kind, "$eq", raw, depth))
            case "$nin":
                return Not(self._condition(name, kind, "$in", raw, depth))
            case "$not":
                return Not(self.conditions_of(name, kind, filled(raw, operator), depth + 1))
            case "$exists":
                return _exists(name, raw)
            case "$elemMatch" if kind.kind in JSON_KINDS:
                return Element(name, self._inside(raw, depth + 1))
            case _ if operator not in OPERATORS:
                raise unknown_operator(operator, OPERATORS)
            case _ if kind.kind in JSON_KINDS:
                read = json_condition(name, operator, raw)
                self._count(len(read.operand) if operator == "$all" and isinstance(read.operand, tuple) else 0)
                return read
            case _:
                return _typed_condition(name, kind, operator, raw)

    def _stop_at(self, problem: ValueProblem) -> None:
        """Read on after a mistake, so that all are told, but not beyond what a filter may hold."""
        if self.conditions > MOST_CONDITIONS:
            raise problem from None

    def _count(self, conditions: int) -> None:
        self.conditions += conditions
        if self.conditions > MOST_CONDITIONS:
            raise ValueProblem(f"a filter has at most {MOST_CONDITIONS:,} conditions", kind="shape", fix="use $in")

    def _inside(self, raw: object, depth: int) -> Filter:
        """The operand of `$elemMatch`: operators for the element itself, or a filter over its members."""
        inside = _Reader(None)
        inside.conditions = self.conditions
        written = filled(raw, "$elemMatch")
        read = inside.conditions_of("", ValueType("json", True), written, depth) if _is_for_itself(written) else (
            inside.filter(written, depth)
        )  # fmt: skip
        self.conditions = inside.conditions
        return read


def _check_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise ValueProblem(f"a filter may be nested {DEEPEST} deep", kind="shape")


def _joined(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _has_operator(raw: object) -> bool:
    return isinstance(raw, Mapping) and any(key.startswith("$") for key in raw) and set(raw) != {"$literal"}


def _is_for_itself(raw: Mapping[str, object]) -> bool:
    """Whether the operand of `$elemMatch` has operators: `$not` counts as one where its inside does."""
    words = [key for key in raw if key.startswith("$") and key not in _BRANCHES]
    if words == ["$not"]:
        inside = raw["$not"]
        return isinstance(inside, Mapping) and bool(inside) and _is_for_itself(inside)
    return bool(words)


def _exists(name: str, raw: object) -> Filter:
    value = parse_value(ValueType("boolean"), raw)
    if isinstance(value, Connection):
        return Compare(name, "$exists", value)
    there = Compare(name, "$exists", True)
    return there if value else Not(there)


# --- conditions on typed columns ------------------------------------------------------------------------------


def _typed_condition(name: str, kind: ValueType, operator: str, raw: object) -> Filter:
    match operator:
        case "$eq":
            return Compare(name, "$eq", _operand(kind, raw, null=True))
        case "$in":
            return _membership(name, kind, raw)
        case "$gt" | "$gte" | "$lt" | "$lte":
            _wants(kind, operator, _ORDERED)
            return Compare(name, operator, _operand(kind, raw))
        case "$between":
            _wants(kind, operator, _ORDERED)
            low, high = _bounds(kind, raw)
            return All((Compare(name, "$gte", low), Compare(name, "$lte", high)))
        case "$like" | "$ilike" | "$regex" | "$contains" | "$startswith" | "$endswith":
            _wants(kind, operator, _TEXTS)
            return Compare(name, operator, text_operand(operator, raw))
        case "$mod":
            _wants(kind, operator, ("integer",))
            return Compare(name, operator, divisor_and_remainder(raw))
        case _:
            _wants(kind, operator, JSON_KINDS)
            raise AssertionError(operator)


def _bounds(kind: ValueType, raw: object) -> tuple[object, ...]:
    listed = items_of(raw)
    if listed is None or len(listed) != 2:
        raise ValueProblem("$between wants [low, high]", kind="shape")
    return _operands(kind, listed, null=False)


def _membership(name: str, kind: ValueType, raw: object) -> Filter:
    """`$in`. A null in the list stays in it; whoever makes the SQL gives it its meaning."""
    if isinstance(raw, Connection):
        element_type_fits(raw, kind)
        return Compare(name, "$in", raw)
    listed = items_of(raw)
    if listed is None:
        raise ValueProblem("$in and $nin want a list", kind="shape")
    return Compare(name, "$in", _operands(kind, listed, null=True))


def _operands(kind: ValueType, listed: list[object], null: bool) -> tuple[object, ...]:
    values = []
    for index, item in enumerate(listed):
        try:
            values.append(_operand(kind, item, null=null))
        except ValueProblem as problem:
            raise problem.under(index) from None
    return tuple(values)


def _operand(kind: ValueType, raw: object, null: bool = False) -> object:
    if isinstance(raw, Mapping) and set(raw) != {"$literal"}:
        raise ValueProblem(f"wants {kind.required()}, got a mapping", kind="shape")
    if kind.kind == "enum" and isinstance(raw, Connection) and raw.type.kind in ("string", "text"):
        return raw  # judged when the value is there
    if kind.kind == "integer":
        raw = by_value(raw)
    return parse_value(kind.optional() if null else kind.required(), raw, to_scale=False)


def _wants(kind: ValueType, operator: str, kinds: tuple[str, ...]) -> None:
    if kind.kind not in kinds:
        raise ValueProblem(f"{operator} does not work on {kind.kind}", key=True, kind="name")


# --- orders ---------------------------------------------------------------------------------------------------


def parse_order_by(raw: object, fields: Mapping[str, ValueType]) -> tuple[Order, ...]:
    """`[-created_at, profile.city]`. Raises `ValueProblem` for anything but fields and JSON paths, each once."""
    if not isinstance(raw, list):
        raise ValueProblem("order_by wants a list of fields", kind="shape")
    orders: list[Order] = []
    for index, item in enumerate(raw):
        name = item.removeprefix("-") if isinstance(item, str) else ""
        try:
            if not isinstance(item, str):
                raise ValueProblem("wants the name of a field", kind="shape")
            _, kind = find_path(name, fields)
            if kind.kind not in _SORTABLE:
                raise ValueProblem(f"{name!r} is {kind.kind}, which has no order", kind="name")
            if any(order.field == name for order in orders):
                raise ValueProblem(f"{name!r} stands twice", kind="shape")
        except ValueProblem as problem:
            problem.key = False
            raise problem.under(index) from None
        orders.append(Order(str(name), item.startswith("-")))
    return tuple(orders)
