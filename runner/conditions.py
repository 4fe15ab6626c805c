"""Conditions of steps: the filter language over references, as a `when` says it. Read and typed here; `evaluate` judges
them when the values are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from runner.evaluate import matches
from runner.ports import Link
from schemas.filters import All, AnyOf, Compare, Filter, Not, parse_filter
from schemas.types import ValueProblem, ValueType

_BRANCHES = ("$and", "$or", "$nor")
_HOLD_NULLS = ("any", "json", "list")
"""Types whose values may have a null in them, which `null` finds."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter whose fields are references; `links` says where the value of each comes from, under its text."""

    tree: Filter
    links: tuple[Link, ...]
    types: Mapping[str, ValueType] = field(hash=False)


def references_in(raw: object) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Every key of the condition that stands where a field would, with its path."""
    if not isinstance(raw, Mapping):
        return
    for key, value in raw.items():
        if key in _BRANCHES and isinstance(value, list):
            for index, each in enumerate(value):
                yield from ((name, (key, index, *path)) for name, path in references_in(each))
        elif key == "$not":
            yield from ((name, (key, *path)) for name, path in references_in(value))
        elif not key.startswith("$"):
            yield key, (key,)


def read_condition(raw: object, link_of: Callable[[str, tuple[str | int, ...]], Link | None]) -> Condition | None:
    """The condition that `raw` stands for; None when one of its references leads nowhere, which `link_of` has reported.

    Raises `ValueProblem` whose path leads to the part at fault.
    """
    links: dict[str, Link] = {}
    is_whole = True
    for name, path in references_in(raw):
        if name in links:
            continue
        link = link_of(name, path)
        if link is None:
            is_whole = False
        elif link.type.kind in ("rows", "record", "secret"):
            what = f"{name!r} is {'a secret' if link.type.kind == 'secret' else link.type}"
            fix = f"did you mean {name}.count?" if link.type.kind == "rows" else ""
            raise ValueProblem(f"{what}, a condition wants one value", path, key=True, fix=fix)
        else:
            links[name] = link
    if not is_whole:
        return None
    types = {name: link.type for name, link in links.items()}
    return Condition(parse_filter(raw, types), tuple(links.values()), types)


def holds(condition: Condition, values: Mapping[str, object]) -> bool:
    """Whether the condition holds for these values, by the text of each reference."""
    return matches(condition.tree, values)


def constant(tree: Filter, types: Mapping[str, ValueType]) -> bool | None:
    """True or False where the condition comes out the same whatever the values, None where it depends on them."""
    match tree:
        case All(parts):
            found = [constant(part, types) for part in parts]
            return False if False in found else True if all(found) else None
        case AnyOf(parts):
            found = [constant(part, types) for part in parts]
            return True if True in found else None if None in found else False
        case Not(inside):
            known = constant(inside, types)
            return None if known is None else not known
        case Compare(field, "$in", operand) if operand == ():
            return False
        case Compare(field, "$exists", operand) if not types[field].nullable and types[field].kind != "any":
            return bool(operand)
        case Compare(field, "$eq", None) if not types[field].nullable and types[field].kind not in _HOLD_NULLS:
            return False
        case _:
            return None
