"""What several kinds read alike: plain ports, filters, and the ways to name one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from runner.nodes.base import Subject
from runner.query import Deleted
from schemas.filters import All, Compare, Filter, parse_filter
from schemas.nodes import NOTHING, Port
from schemas.shapes import ModelShape
from schemas.types import ValueProblem, ValueType, parse_value

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
    return read_under("filter", lambda: parse_filter(raw, field_types(model)))


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
