"""Filters on values that are at hand: the checks of parameters and the node `assert`. The same answers as in SQL."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from runner.patterns import matches_pattern
from schemas.filters import All, AnyOf, Compare, Filter, Not

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq, "$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le,
}  # fmt: skip


def matches(tree: Filter, values: Mapping[str, object]) -> bool:
    """Whether the values meet the filter: true or false, never unknown. Operands and values are of the same kind."""
    match tree:
        case All(parts):
            return all(matches(part, values) for part in parts)
        case AnyOf(parts):
            return any(matches(part, values) for part in parts)
        case Not(inside):
            return not matches(inside, values)
        case Compare(field, word, operand):
            return _compare(values.get(field), word, operand)


_TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "$contains": operator.contains, "$startswith": str.startswith, "$endswith": str.endswith,
}  # fmt: skip


def _compare(value: Any, word: str, operand: Any) -> bool:
    if word == "$exists":
        return (value is not None) == bool(operand)
    if word == "$in":
        return any(_compare(value, "$eq", item) for item in operand)
    if word == "$eq" and operand is None:
        return value is None
    if value is None:
        return False
    if word == "$like":
        return _like(str(operand)).fullmatch(str(value)) is not None
    if word in ("$regex", "$ilike"):
        return matches_pattern(operand.spelled, value)
    if word in _TEXT_TESTS:
        return _TEXT_TESTS[word](value, operand)
    if word == "$mod":
        # the remainder has the sign of the dividend, as in SQL and unlike Python's %
        remainder = abs(value) % abs(operand[0])
        return bool((-remainder if value < 0 else remainder) == operand[1])
    return isinstance(value, bool) == isinstance(operand, bool) and _COMPARISONS[word](value, operand)


@lru_cache(maxsize=256)
def _like(pattern: str) -> re.Pattern[str]:
    """LIKE as a regular expression of literals and wildcards: no alternatives and no nesting, so no blow-up beyond
    the number of its `%`."""
    parts: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            if parts[-1:] != [".*?"]:
                parts.append(".*?")
        elif character == "_":
            parts.append(".")
        else:
            parts.append(re.escape(next(characters) if character == "\\" else character))
    return re.compile("".join(parts), re.DOTALL)
