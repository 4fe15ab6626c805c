"""What a filter is once it was read: a small tree of conditions. `filters` reads it, `runner.sql.filters` makes SQL of
it, `runner.evaluate` asks it of values that are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Comparison = Literal[
    "$eq", "$gt", "$gte", "$lt", "$lte", "$between", "$in", "$exists", "$like", "$ilike", "$regex", "$contains",
    "$startswith", "$endswith", "$mod", "$all", "$size",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compare:
    """One field, or one path into a JSON column, against one operand; `operand` may be a `Connection` until the value
    is there. Inside an `Element`, `field` is a path that starts at the element, "" for the element itself."""

    field: str
    operator: Comparison
    operand: object


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the JSON array at `field` meets the whole `inside`."""

    field: str
    inside: Filter


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


Filter = Compare | Element | Not | All | AnyOf


def names_members(tree: Filter) -> bool:
    """Whether a filter inside an `Element` asks for members, which only objects have."""
    match tree:
        case Compare(name, _, _) | Element(name, _):
            return name != ""
        case Not(inside):
            return names_members(inside)
        case All(parts) | AnyOf(parts):
            return any(names_members(part) for part in parts)


def asks_nothing(tree: Filter) -> bool:
    """Whether a filter says nothing about a row: it is empty, or made of empty ones."""
    match tree:
        case All(parts):
            return all(asks_nothing(part) for part in parts)
        case AnyOf(parts):
            return any(asks_nothing(part) for part in parts)
        case _:
            return False
