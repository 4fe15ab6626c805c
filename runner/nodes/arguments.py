"""What several kinds read alike: plain ports, filters, and the ways to name one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from runner.nodes.base import Subject
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


def model_of(subject: Subject) -> ModelShape:
    """The model of a generated node."""
    assert subject.model is not None, "a generated node always has a model"
    return subject.model


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
