"""Aggregates as data: a name, an operator and a field each, and the type of what comes out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from schemas.base import NAME
from schemas.paths import find_path
from schemas.types import ValueProblem, ValueType

Operator = Literal["$count", "$sum", "$avg", "$min", "$max"]
OPERATORS = ("$count", "$sum", "$avg", "$min", "$max")
AVERAGE_DIGITS = 6
"""`$avg` keeps so many digits more than its field, rounded half up, on both databases."""
_NUMBERS = ("integer", "float", "decimal")
_ORDERED = (*_NUMBERS, "string", "text", "enum", "date", "time", "datetime")
_SUM_DIGITS = 38


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One result: `operator` over `field` (None: rows are counted); `type` is what comes out."""

    name: str
    operator: Operator
    field: str | None
    type: ValueType


def parse_aggregate(raw: object, fields: Mapping[str, ValueType], groups: Collection[str]) -> tuple[Aggregate, ...]:
    """`{revenue: {$sum: total}, orders: {$count: "*"}}`. Raises `ValueProblem` with the path of the part at fault."""
    if not isinstance(raw, Mapping) or not raw:
        raise ValueProblem("wants a mapping of names to one operator each", kind="shape", fix='{rows: {$count: "*"}}')
    found = []
    for name, written in raw.items():
        try:
            if not re.match(NAME, name):
                raise ValueProblem(f"{name!r} is not a name", key=True, kind="shape")
            if name in groups:
                raise ValueProblem(f"{name!r} is a field of group_by already", key=True, kind="shape")
            if not isinstance(written, Mapping) or len(written) != 1:
                raise ValueProblem("wants one operator over one field, such as {$sum: total}", kind="shape")
            operator, field = next(iter(written.items()))
            found.append(_read(name, operator, field, fields))
        except ValueProblem as problem:
            raise problem.under(name) from None
    return tuple(found)


def parse_group_by(raw: object, fields: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
    """A list of fields and JSON paths, each once; with the type that each has in the result."""
    if not isinstance(raw, list):
        raise ValueProblem("wants a list of fields", kind="shape")
    groups: dict[str, ValueType] = {}
    for index, name in enumerate(raw):
        try:
            if not isinstance(name, str):
                raise ValueProblem("wants the name of a field", kind="shape")
            _, kind = find_path(name, fields)
            if kind.kind == "bytes":
                raise ValueProblem(f"{name!r} is {kind.kind}, which makes no groups", kind="name")
            if name in groups:
                raise ValueProblem(f"{name!r} stands twice", kind="shape")
        except ValueProblem as problem:
            problem.key = False
            raise problem.under(index) from None
        groups[str(name)] = kind
    return groups


def _read(name: str, operator: str, field: object, fields: Mapping[str, ValueType]) -> Aggregate:
    if operator not in OPERATORS:
        close = get_close_matches(operator, OPERATORS, n=1)
        fix = f"did you mean {close[0]}?" if close else "one of: " + ", ".join(OPERATORS)
        raise ValueProblem(f"there is no operator {operator!r} here", (operator,), key=True, kind="name", fix=fix)
    if operator == "$count" and field == "*":
        return Aggregate(name, "$count", None, ValueType("integer"))
    if not isinstance(field, str):
        raise ValueProblem(f"{operator} wants the name of a field", (operator,), kind="shape")
    field = str(field)
    try:
        _, kind = find_path(field, fields)
    except ValueProblem as problem:
        problem.key = False
        raise problem.under(operator) from None
    allowed = {"$count": None, "$sum": _NUMBERS, "$avg": _NUMBERS}.get(operator, _ORDERED)
    if allowed is not None and kind.kind not in allowed:
        raise ValueProblem(f"{operator} does not work on {kind.kind}", (operator,), key=True, kind="name")
    match operator:
        case "$count":
            return Aggregate(name, "$count", field, ValueType("integer"))
        case "$sum":
            out = ValueType("decimal", precision=_SUM_DIGITS, scale=kind.scale) if kind.kind == "decimal" else kind
            return Aggregate(name, "$sum", field, out.required())
        case "$avg" if kind.kind == "float":
            return Aggregate(name, "$avg", field, kind.optional())
        case "$avg":
            scale = (kind.scale or 0) + AVERAGE_DIGITS
            return Aggregate(name, "$avg", field, ValueType("decimal", True, precision=_SUM_DIGITS, scale=scale))
        case _:
            return Aggregate(name, "$min" if operator == "$min" else "$max", field, kind.optional())
