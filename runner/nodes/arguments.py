"""What several kinds read alike: plain ports, filters, and the ways to name one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from runner.nodes.base import Subject
from runner.query import Deleted
from schemas.filters import All, Compare, Filter, parse_filter
from schemas.nodes import NOTHING, Port
from schemas.parsing import parse_value
from schemas.shapes import FieldShape, ModelShape
from schemas.types import ValueProblem, ValueType
from schemas.updates import Assign, FieldOf

FILTER = Port("filter", ValueType("json"), help="which rows", shape="filter")
T = TypeVar("T")
MISSING = Port(
    "missing", ValueType("enum", values=("error", "null")), default="error", literal=True,
    help="what happens when no row is found",
)  # fmt: skip


INCLUDE_DELETED = Port(
    "include_deleted", ValueType("boolean"), default=False, literal=True, help="softly deleted rows, too"
)
HARD = Port("hard", ValueType("boolean"), default=False, literal=True, help="delete for good, not only hide")
RESTORE = Port(
    "restore", ValueType("boolean"), default=False, literal=True, help="find deleted rows, and bring them back"
)
STAND_IN = Port(
    "stand_in", ValueType("json"), literal=True, help="what the step gives in a dry run, which leaves it out"
)
EXPECTED_VERSION = Port("expected_version", ValueType("integer"), help="the version the row must still have")


def model_of(subject: Subject) -> ModelShape:
    """The model of a generated node."""
    assert subject.model is not None, "a generated node always has a model"
    return subject.model


def deleted_ports(model: ModelShape) -> dict[str, Port]:
    """`include_deleted`, where a model hides what was deleted."""
    return {"include_deleted": INCLUDE_DELETED} if "soft_delete" in model.features else {}


def read_switch(arguments: Mapping[str, object], name: str) -> bool:
    """A literal `true` or `false`; false without one."""
    return read_under(name, lambda: parse_value(ValueType("boolean"), arguments.get(name, "false"))) is True


def read_stand_in(arguments: Mapping[str, object], output: ValueType) -> Mapping[str, object] | None:
    """What `stand_in` says, each member in its type; members that may be null may be left out."""
    if "stand_in" not in arguments:
        return None
    raw = arguments["stand_in"]
    fields = output.fields or {}
    if isinstance(raw, Mapping) and output.fields is not None:
        raw = {name: None for name, kind in fields.items() if kind.nullable} | dict(raw)
    value = read_under("stand_in", lambda: parse_value(output, raw))
    assert isinstance(value, Mapping)
    return value


def read_deleted(arguments: Mapping[str, object]) -> Deleted:
    """What `include_deleted` says."""
    return "included" if read_switch(arguments, "include_deleted") else "hidden"


def hard_ports(model: ModelShape) -> dict[str, Port]:
    """`hard` and what it may meet, where a delete only marks."""
    return {"hard": HARD} | deleted_ports(model) if "soft_delete" in model.features else {}


def read_hard(arguments: Mapping[str, object]) -> bool:
    """What `hard` says. Raises `ValueProblem` when deleted rows are to be deleted once more."""
    is_hard = read_switch(arguments, "hard")
    if not is_hard and read_switch(arguments, "include_deleted"):
        fix = "hard: true deletes them for good"
        raise ValueProblem("these rows are deleted already", ("include_deleted",), key=True, kind="shape", fix=fix)
    return is_hard


def restore_ports(model: ModelShape) -> dict[str, Port]:
    """`restore`, where a delete only marks."""
    return {"restore": RESTORE} if "soft_delete" in model.features else {}


def version_ports(model: ModelShape) -> dict[str, Port]:
    """`expected_version`, where a model counts its changes."""
    return {"expected_version": EXPECTED_VERSION} if "versioned" in model.features else {}


def field_types(model: ModelShape) -> dict[str, ValueType]:
    """The type of each field, by its name."""
    return {name: field.type for name, field in model.fields.items()}


def read_ports(ports: Mapping[str, Port], arguments: Mapping[str, object]) -> dict[str, object]:
    """The values of plain ports, defaults filled in. Raises all problems of them as one `ExceptionGroup`."""
    problems: list[ValueProblem] = []
    values: dict[str, object] = {}
    for name, port in ports.items():
        if port.shape is not None:
            continue
        if name not in arguments:
            if port.default is not NOTHING:
                values[name] = port.default
            continue
        try:
            values[name] = parse_value(port.type, arguments[name])
        except ValueProblem as problem:
            problems.append(problem.under(name))
    if problems:
        raise ExceptionGroup("arguments", problems)
    return values


def read_under(name: str, parser: Callable[[], T]) -> T:
    """What `parser` gives; its problem begins with the port's name."""
    try:
        return parser()
    except ValueProblem as problem:
        raise problem.under(name) from None


def filter_of(arguments: Mapping[str, object], model: ModelShape) -> Filter:
    """The filter of a node; without one, every row."""
    raw = arguments.get("filter", {})
    read_under("filter", lambda: refuse_sealed(raw, model))
    return read_under("filter", lambda: parse_filter(raw, field_types(model)))


def refuse_sealed(raw: object, model: ModelShape) -> None:
    """Refuse a condition that the keyed index of an encrypted field cannot answer."""
    if not model.is_encrypted or not isinstance(raw, Mapping):
        return
    for key, inside in raw.items():
        try:
            if key in ("$and", "$or", "$nor") and isinstance(inside, list):
                for index, item in enumerate(inside):
                    _refuse_branch(index, item, model)
            elif key == "$not":
                refuse_sealed(inside, model)
            elif (field := model.fields.get(key.split(".")[0])) is not None and field.encrypted:
                _refuse_condition(inside, field)
        except ValueProblem as problem:
            raise problem.under(key) from None


def _refuse_branch(index: int, raw: object, model: ModelShape) -> None:
    try:
        refuse_sealed(raw, model)
    except ValueProblem as problem:
        raise problem.under(index) from None


def _refuse_condition(raw: object, field: FieldShape) -> None:
    is_plain = not (isinstance(raw, Mapping) and any(str(key).startswith("$") for key in raw))
    operators = {"$eq": raw} if is_plain else dict(raw) if isinstance(raw, Mapping) else {}
    for operator, operand in operators.items():
        if operator == "$not":
            _refuse_condition(operand, field)
            continue
        is_equality = operator in ("$eq", "$ne", "$in", "$nin")
        if operator != "$exists" and not (is_equality and (field.searchable or operand is None)):
            raise sealed_problem(field, operator, () if is_plain else (operator,))


def sealed_problem(field: FieldShape, what: str, path: tuple[str | int, ...] = ()) -> ValueProblem:
    """What may not be asked of an encrypted field."""
    can = "equality" if field.searchable else "whether it is null"
    fix = f"ask for {can} only" + ("" if field.searchable else f", or declare searchable: [{field.name}]")
    why = "the database sees sealed bytes, and cannot compare what is in them"
    problem = ValueProblem(f"{what} of {field.name!r}, which is encrypted", path, kind="name", why=why, fix=fix)
    problem.key = bool(path)
    return problem


def refuse_sealed_update(assigns: Iterable[Assign], model: ModelShape) -> None:
    """Refuse to compute with an encrypted field; it can only be set to a value."""
    for assign in assigns:
        operands = [part.name for part in assign.operands if isinstance(part, FieldOf)]
        for name in (*operands, *([assign.field] if assign.operator != "$set" or assign.steps else [])):
            if model.fields[name].encrypted:
                raise sealed_problem(model.fields[name], "arithmetic or a copy", (assign.field,))


def refuse_sealed_names(names: Iterable[str], model: ModelShape, what: str) -> None:
    """Refuse to order, group or aggregate by an encrypted field. names: fields, paths, or with `-` in front."""
    for index, name in enumerate(names):
        field = model.fields.get(str(name).removeprefix("-").split(".")[0])
        if field is not None and field.encrypted:
            raise sealed_problem(field, what, (index,))


def key_ports(model: ModelShape) -> dict[str, Port]:
    """A port for each field that names one row by itself."""
    keys = [key[0] for key in model.unique_keys() if len(key) == 1]
    return {k: Port(k, model.fields[k].type.required(), help=f"the row with this {k}") for k in keys}


def one_row_filter(arguments: Mapping[str, object], model: ModelShape, values: Mapping[str, object]) -> Filter:
    """The condition that names one row: by unique fields, by a filter, or both. Raises when there is neither."""
    named = [Compare(name, "$eq", values[name]) for name in key_ports(model) if name in values]
    if not named and "filter" not in arguments:
        ways = ", ".join([*key_ports(model), "filter"])
        raise ValueProblem(
            "nothing says which row", kind="shape", why="a node for one row needs to know which", fix=ways
        )
    parts = (*named, filter_of(arguments, model)) if "filter" in arguments else tuple(named)
    return parts[0] if len(parts) == 1 else All(parts)
