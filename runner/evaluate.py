"""Filters on values that are at hand: the checks of parameters and the node `assert`. The same answers as in SQL."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runner.sql.patterns import matches_pattern
from schemas.conditions import All, AnyOf, Compare, Element, Filter, Not, names_members
from schemas.jsonvalues import canonical, is_number, json_value
from schemas.paths import is_index

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le,
}  # fmt: skip
_TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "$contains": operator.contains, "$startswith": str.startswith, "$endswith": str.endswith,
}  # fmt: skip
_MISSING = object()


def matches(tree: Filter, values: Mapping[str, object]) -> bool:
    """Whether the values meet the filter: true or false, never unknown. Operands and values are of the same kind."""
    return _matches(tree, lambda name: _place(name, values))


Find = Callable[[str], tuple[object, tuple[str, ...]]]
"""The value where the path of this name starts, and the steps into it."""


def _matches(tree: Filter, find: Find) -> bool:
    match tree:
        case All(parts):
            return all(_matches(part, find) for part in parts)
        case AnyOf(parts):
            return any(_matches(part, find) for part in parts)
        case Not(inside):
            return not _matches(inside, find)
        case Element(name, inside):
            start, steps = find(name)
            arrays = [leaf for leaf in leaves(start, steps) if isinstance(leaf, list)]
            return any(_element_matches(inside, element) for leaf in arrays for element in leaf)
        case Compare(name, word, operand):
            start, steps = find(name)
            return _compare(start, steps, word, operand, is_element=name == "")


def _place(name: str, values: Mapping[str, object]) -> tuple[object, tuple[str, ...]]:
    if name in values:
        value = values[name]
        return (json_value(value), ()) if isinstance(value, (list, Mapping)) else (value, ())
    column, *steps = name.split(".")
    while column not in values and len(steps) > 1:
        column = f"{column}.{steps.pop(0)}"
    value = values.get(column)
    return (json_value(value) if isinstance(value, (list, Mapping)) else value), tuple(steps)


def _element_matches(inside: Filter, element: object) -> bool:
    def find(name: str) -> tuple[object, tuple[str, ...]]:
        if name == "":
            return element, ()
        # a filter over members asks an object for them; anything else has none
        return (element if isinstance(element, dict) else {}), tuple(name.split("."))

    is_for_members = not isinstance(element, dict) and names_members(inside)
    return not is_for_members and _matches(inside, find)


def leaves(value: object, steps: tuple[str, ...]) -> Iterator[object]:
    """What stands at the end of a path, null where it ends early. A step goes through an array to each of the objects
    in it; a step of digits takes one element."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(value, list) and not is_index(step):
        inside = [item for item in value if isinstance(item, dict)]
        if not inside:
            yield None
        for item in inside:
            yield from leaves(item.get(step), rest)
    else:
        found = child(value, step)
        yield from leaves(None if found is _MISSING else found, rest)


def child(value: object, step: str) -> object:
    """The member or the element that one step leads to, `_MISSING` without one."""
    if isinstance(value, dict):
        return value.get(step, _MISSING)
    if isinstance(value, list) and is_index(step) and len(step) < 10 and int(step) < len(value):
        return value[int(step)]
    return _MISSING


def is_there(value: object, steps: tuple[str, ...]) -> bool:
    """Whether the path leads to a key or an element that exists; without steps, whether the value is not null."""
    if not steps:
        return value is not None
    parents = leaves(value, steps[:-1])
    for parent in parents:
        inside = [parent]
        if isinstance(parent, list) and not is_index(steps[-1]):
            inside = [item for item in parent if isinstance(item, dict)]
        if any(child(item, steps[-1]) is not _MISSING for item in inside):
            return True
    return False


def value_at(value: object, steps: tuple[str, ...]) -> object:
    """What stands at the end of a path that goes through no array but by index; None for what is missing."""
    here = value
    for step in steps:
        here = child(here, step)
        if here is _MISSING:
            return None
    return here


def _compare(start: object, steps: tuple[str, ...], word: str, operand: Any, is_element: bool) -> bool:
    if word == "$exists":
        return is_there(start, steps) == bool(operand)
    if word == "$all":
        return bool(operand) and all(_compare(start, steps, "$eq", item, is_element) for item in operand)
    found = list(leaves(start, steps))
    if word == "$size":
        return any(isinstance(leaf, list) and len(leaf) == operand for leaf in found)
    if word == "$contains":
        return any(_contains(leaf, operand) for leaf in found)
    if not is_element:
        found += [item for leaf in found if isinstance(leaf, list) for item in leaf]
    return any(_test(value, word, operand) for value in found)


def _contains(leaf: object, operand: object) -> bool:
    if isinstance(leaf, list):
        return any(_equal(item, operand) for item in leaf)
    return isinstance(leaf, str) and isinstance(operand, str) and operand in leaf


def _test(value: Any, word: str, operand: Any) -> bool:
    """One value against one operand of an operator that works on single values."""
    match word:
        case "$eq":
            return _equal(value, operand)
        case "$in":
            return any(_equal(value, item) for item in operand)
        case "$between":
            return _test(value, "$gte", operand[0]) and _test(value, "$lte", operand[1])
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _is_one_kind(value, operand) and _COMPARISONS[word](value, operand)
        case "$mod":
            # the remainder has the sign of the dividend, as in SQL and unlike Python's %
            remainder = abs(value) % abs(operand[0]) if is_number(value) else None
            return remainder is not None and bool((-remainder if value < 0 else remainder) == operand[1])
        case _ if not isinstance(value, str):
            return False
        case "$regex" | "$like" | "$ilike":
            return matches_pattern(operand.local or operand.spelled, value)
        case _:
            return _TEXT_TESTS[word](value, operand)


def _is_one_kind(value: object, operand: object) -> bool:
    if is_number(value) or is_number(operand):
        return is_number(value) and is_number(operand)
    return value is not None and not isinstance(value, (bool, list, dict)) and type(value) is type(operand)


def _equal(value: Any, operand: Any) -> bool:
    if value is None or operand is None:
        return value is operand
    if isinstance(value, (list, dict)) or isinstance(operand, (list, dict)):
        return isinstance(value, type(operand)) and canonical(value) == canonical(operand)
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    return bool(value == operand)
