"""Updates as small typed trees: which field becomes what. Reads them from arguments; the SQL is made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from schemas.jsonfilters import json_bound, json_number, json_operand, refuse_operators
from schemas.jsonvalues import json_value
from schemas.operands import by_value
from schemas.parsing import parse_value
from schemas.paths import JSON_KINDS, find_path, nearest
from schemas.shapes import FieldShape, ModelShape
from schemas.types import Connection, ValueProblem, ValueType, widens

Change = Literal[
    "$set", "$unset", "$add", "$subtract", "$multiply", "$min", "$max", "$push", "$addToSet", "$pull"
]  # fmt: skip
OPERATORS = (
    "$set", "$unset", "$inc", "$dec", "$multiply", "$mul", "$add", "$subtract", "$min", "$max", "$push", "$addToSet",
    "$pull",
)  # fmt: skip
ON_ARRAYS = ("$push", "$addToSet", "$pull")
_NUMBERS = ("integer", "float", "decimal")
_ORDERED = (*_NUMBERS, "string", "text", "date", "time", "datetime")
_NUMBER = {"integer": ValueType("integer"), "float": ValueType("float"), "decimal": ValueType("decimal")}


@dataclass(frozen=True, slots=True)
class FieldOf:
    """Another column of the same row, as it was before the update."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class RowOf:
    """A column of the data row, in updates that bring one data row for each row."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Assign:
    """`field` becomes what `operator` makes of `operands`: values, `FieldOf`, `RowOf`, or connections until the run.

    steps: the path into a JSON column whose end changes. There, and for the operators on arrays, what the operator
    starts from is what the place holds, and `operands` is one JSON value (none for `$unset`).
    """

    field: str
    operator: Change
    operands: tuple[object, ...]
    steps: tuple[str, ...] = ()

    @property
    def is_inside(self) -> bool:
        """Whether this changes a part of a JSON value, rather than giving the field a new one."""
        return bool(self.steps) or self.operator in ON_ARRAYS


@dataclass(frozen=True, slots=True)
class _Scope:
    model: ModelShape
    row_fields: Mapping[str, ValueType] | None


def parse_update(
    raw: object, model: ModelShape, row_fields: Mapping[str, ValueType] | None = None
) -> tuple[Assign, ...]:
    """The assignments that `raw` means, each field once.

    `{price: {$multiply: 0.9}}` and `{$multiply: {price: 0.9}}` are the same; a bare value is `$set`.
    row_fields: the columns of the data rows, for `{$row: name}`; None where there are none.

    Raises `ValueProblem` whose path leads to the part at fault.
    """
    if not isinstance(raw, Mapping):
        raise ValueProblem("an update is a mapping of fields to what they become", kind="shape")
    if not raw:
        raise ValueProblem("an update that changes nothing", kind="shape", fix="name a field and its new value")
    scope = _Scope(model, row_fields)
    assigns: list[Assign] = []
    for key, value in raw.items():
        try:
            added = _by_operator(key, value, scope) if key.startswith("$") else [_by_field(key, value, scope)]
        except ValueProblem as problem:
            raise problem.under(key) from None
        for assign in added:
            assigns.append(assign)
            _refuse_twice(assigns, key)
    return tuple(assigns)


def _refuse_twice(assigns: list[Assign], key: str) -> None:
    """A field, or a path, is changed once; so is whatever lies above or below it."""
    last = assigns[-1]
    for place in ((assign.field, *assign.steps) for assign in assigns[:-1]):
        mine = (last.field, *last.steps)
        shared = min(len(place), len(mine))
        if place[:shared] == mine[:shared]:
            name = ".".join(place)
            what = f"{name!r} is changed twice" if place == mine else f"{'.'.join(mine)!r} and {name!r} overlap"
            raise ValueProblem(what, (key,), key=True, kind="shape")


def _by_operator(operator: str, raw: object, scope: _Scope) -> list[Assign]:
    if operator not in OPERATORS:
        raise _unknown(operator)
    if not isinstance(raw, Mapping) or not raw:
        raise ValueProblem(f"{operator} wants a mapping of fields", kind="shape")
    assigns: list[Assign] = []
    for name, operand in raw.items():
        try:
            assigns.append(_assign(*_field(name, scope), operator, operand, scope))
        except ValueProblem as problem:
            raise problem.under(name) from None
        _refuse_twice(assigns, name)
    return assigns


def _by_field(name: str, raw: object, scope: _Scope) -> Assign:
    field, steps = _field(name, scope)
    if not isinstance(raw, Mapping) or set(raw) == {"$literal"}:
        return _assign(field, steps, "$set", raw, scope)
    operators = [key for key in raw if key.startswith("$")]
    if set(raw) <= {"$field", "$row"} and raw:
        return _assign(field, steps, "$set", raw, scope)
    if not operators:
        if steps or field.type.kind == "json":
            return _assign(field, steps, "$set", raw, scope)
        raise ValueProblem("wants an operator or a value, got a mapping", kind="shape")
    if len(operators) < len(raw):
        plain = next(key for key in raw if not key.startswith("$"))
        raise ValueProblem(f"{plain!r} stands beside operators", (plain,), key=True, kind="shape")
    if len(raw) > 1:
        raise ValueProblem("two operators for one field", (list(raw)[1],), key=True, kind="shape")
    operator = operators[0]
    try:
        if operator not in OPERATORS:
            raise _unknown(operator)
        return _assign(field, steps, operator, raw[operator], scope)
    except ValueProblem as problem:
        raise problem.under(operator) from None


def _field(name: str, scope: _Scope) -> tuple[FieldShape, tuple[str, ...]]:
    """The field that changes, and the path into it."""
    model = scope.model
    try:
        path, _ = find_path(name, model.types)
    except ValueProblem as problem:
        if problem.what.startswith("there is no field"):
            known = name.partition(".")[0]
            problem.what, problem.fix = f"{model.name} has no field {known!r}", nearest(known, model.writable)
        raise
    field = model.fields[path.column]
    if field.managed or field.generated:
        raise ValueProblem(f"{name!r} is written by dfrun alone", key=True, kind="name")
    if field.primary_key:
        raise ValueProblem(f"{name!r} is the key of {model.name} and never changes", key=True, kind="name")
    if any(step == "$" or step.startswith("$[") for step in path.steps):
        fix = f"an index, such as {path.column}.0, or $addToSet and $pull"
        raise ValueProblem("an update has no positional steps", key=True, kind="name", fix=fix)
    return field, path.steps


def _assign(field: FieldShape, steps: tuple[str, ...], operator: str, raw: object, scope: _Scope) -> Assign:
    kind = field.type
    if steps or operator in ON_ARRAYS:
        return json_assign(field, steps, operator, raw)
    match operator:
        case "$set":
            if kind.kind == "json" and _column(raw, scope) is None:
                refuse_operators(raw)
            value = _operand(kind, raw, scope)
            if value is None and not kind.nullable:
                raise ValueProblem(f"{field.name!r} may not be null")
            return Assign(field.name, "$set", (value,))
        case "$unset":
            if not kind.nullable:
                raise ValueProblem(f"{field.name!r} may not be null", kind="shape")
            return Assign(field.name, "$set", (None,))
        case "$min" | "$max":
            _wants(kind, operator, _ORDERED)
            return Assign(
                field.name, "$min" if operator == "$min" else "$max", (_operand(kind.required(), raw, scope),)
            )
        case "$inc" | "$dec":
            _wants(kind, operator, _NUMBERS)
            word: Change = "$add" if operator == "$inc" else "$subtract"
            return Assign(field.name, word, (FieldOf(field.name, kind), _number(kind, raw, scope)))
        case "$multiply" | "$mul" if not isinstance(raw, list):
            _wants(kind, operator, _NUMBERS)
            return Assign(field.name, "$multiply", (FieldOf(field.name, kind), _number(kind, raw, scope)))
        case _:
            _wants(kind, operator, _NUMBERS)
            if not isinstance(raw, list) or len(raw) != 2:
                raise ValueProblem(f"{operator} wants two operands, such as [{{$field: price}}, 2]", kind="shape")
            operands = []
            for index, item in enumerate(raw):
                try:
                    operands.append(_number(kind, item, scope))
                except ValueProblem as problem:
                    raise problem.under(index) from None
            change: Change = "$add" if operator == "$add" else "$subtract" if operator == "$subtract" else "$multiply"
            return Assign(field.name, change, tuple(operands))


def _operand(kind: ValueType, raw: object, scope: _Scope) -> object:
    """A value of the field's type, or a column whose values fit it."""
    column = _column(raw, scope)
    if column is None:
        return parse_value(kind, raw)
    if not widens(column.type, kind):
        raise ValueProblem(f"{column.name!r} is {column.type}, wanted {kind}", kind="shape")
    return column


def _number(kind: ValueType, raw: object, scope: _Scope) -> object:
    """An operand of arithmetic: any number for decimals and floats (the result is rounded), whole ones for whole
    numbers, which never come to hold a fraction."""
    column = _column(raw, scope)
    if column is None:
        if isinstance(raw, Connection) and widens(raw.type.required(), _NUMBER[kind.kind]):
            return raw  # a null that arrives is refused when it does
        return parse_value(_NUMBER[kind.kind], by_value(raw) if kind.kind == "integer" else raw)
    if not widens(column.type.required(), _NUMBER[kind.kind]):
        raise ValueProblem(f"{column.name!r} is {column.type}, wanted {kind.kind}", kind="shape")
    return column


def _column(raw: object, scope: _Scope) -> FieldOf | RowOf | None:
    """What `{$field: x}` or `{$row: x}` names; None for anything else."""
    if not isinstance(raw, Mapping) or set(raw) not in ({"$field"}, {"$row"}):
        return None
    word, name = next(iter(raw.items()))
    if word == "$row" and scope.row_fields is None:
        raise ValueProblem("$row means something in updates with data only", (word,), key=True, kind="name")
    known = scope.row_fields if word == "$row" else {n: f.type for n, f in scope.model.fields.items()}
    assert known is not None
    if not isinstance(name, str) or name not in known:
        close = get_close_matches(str(name), known, n=1)
        fix = f"did you mean {close[0]}?" if close else "one of: " + ", ".join(known)
        raise ValueProblem(f"there is no column {str(name)!r}", (word,), kind="name", fix=fix)
    return FieldOf(str(name), known[name]) if word == "$field" else RowOf(str(name), known[name])


def _wants(kind: ValueType, operator: str, kinds: tuple[str, ...]) -> None:
    if kind.kind not in kinds:
        raise ValueProblem(f"{operator} does not work on {kind.kind}", key=True, kind="name")


def _unknown(operator: str) -> ValueProblem:
    fix = nearest(operator, OPERATORS)
    return ValueProblem(f"there is no operator {operator!r} here", key=True, kind="name", fix=fix)


def json_assign(field: FieldShape, steps: tuple[str, ...], operator: str, raw: object) -> Assign:
    """A change of a part of a JSON value. Raises `ValueProblem` for an operand it cannot be meant with."""
    if field.type.kind not in JSON_KINDS:
        raise ValueProblem(f"{operator} does not work on {field.type.kind}", key=True, kind="name")
    if isinstance(raw, Mapping) and set(raw) in ({"$field"}, {"$row"}):
        raise ValueProblem(f"{next(iter(raw))} cannot be put into json", kind="shape", fix="write a value")
    word: Change = _INSIDE.get(operator, "$set")
    match operator:
        case "$unset":
            return Assign(field.name, word, (), steps)
        case "$set" | "$push" | "$addToSet" | "$pull":
            return Assign(field.name, word, (_json_operand(field.type, steps, operator, raw),), steps)
        case "$min" | "$max":
            return Assign(field.name, word, (json_bound(operator, raw),), steps)
        case "$inc" | "$dec" | "$multiply" | "$mul" if not isinstance(raw, list):
            return Assign(field.name, word, (json_number(operator, raw),), steps)
        case _:
            raise ValueProblem(f"{operator} with two operands does not work on json", key=True, kind="name")


_INSIDE: Mapping[str, Change] = {
    "$unset": "$unset", "$inc": "$add", "$dec": "$subtract", "$multiply": "$multiply", "$mul": "$multiply",
    "$min": "$min", "$max": "$max", "$push": "$push", "$addToSet": "$addToSet", "$pull": "$pull",
}  # fmt: skip


def _json_operand(kind: ValueType, steps: tuple[str, ...], operator: str, raw: object) -> object:
    """A JSON value; for the elements of a list, of the type that they have."""
    is_element = operator in ON_ARRAYS if not steps else len(steps) == 1 and operator == "$set"
    if kind.kind == "list" and kind.items is not None and is_element:
        value = parse_value(kind.items, raw)
        return value if isinstance(value, Connection) else json_value(value)
    return json_operand(raw)
