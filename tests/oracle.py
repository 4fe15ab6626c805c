"""Filters, updates and aggregates as docs/query.md tells them, once more in plain Python: what the databases are
compared with. Works on the filters as they are written and shares no code with the program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

GONE = object()


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def exact(number: Any) -> Any:
    """A float beside a decimal stands for its shortest spelling."""
    return Decimal(repr(number)) if isinstance(number, float) else number


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: kinds apart, 5 is 5.0, keys in any order."""
    if is_number(a) and is_number(b):
        return bool(exact(a) == exact(b)) if Decimal in (type(a), type(b)) else bool(a == b)
    if isinstance(a, bool) or isinstance(b, bool) or is_number(a) or is_number(b):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def ends(value: Any, steps: list[str]) -> Iterator[Any]:
    """What stands at the ends of a path; GONE where a key is not there."""
    if not steps:
        yield value
    elif isinstance(value, dict):
        yield from ends(value.get(steps[0], GONE), steps[1:])
    elif isinstance(value, list) and re.fullmatch("[0-9]+", steps[0]):
        index = int(steps[0])
        yield from ends(value[index] if index < len(value) else GONE, steps[1:])
    elif isinstance(value, list):
        objects = [each for each in value if isinstance(each, dict)]
        for each in objects:
            yield from ends(each, steps)
        if not objects:
            yield GONE
    else:
        yield GONE


class Field:
    """What an operator is asked of: one column's value, or all ends of a path."""

    def __init__(self, found: list[Any], is_json: bool, unfolds: bool = True) -> None:
        self.found = found
        self.is_json = is_json
        self.unfolds = unfolds

    def each(self) -> list[Any]:
        inner = [e for f in self.found if isinstance(f, list) for e in f] if self.unfolds and self.is_json else []
        return [*self.found, *inner]

    def some(self, test: Callable[[Any], bool]) -> bool:
        return any(test(value) for value in self.each())


def holds(tree: dict[str, Any], find: Callable[[str], Field]) -> bool:
    """Whether the filter is true."""
    return all(_clause(key, value, find) for key, value in tree.items())


def row_finder(row: dict[str, Any], json_columns: set[str]) -> Callable[[str], Field]:
    def find(name: str) -> Field:
        column, *steps = name.split(".")
        value = row[column]
        if column not in json_columns:
            return Field([value], False)
        return Field(list(ends(GONE if value is None else value, steps)), True)

    return find


def _clause(key: str, value: Any, find: Callable[[str], Field]) -> bool:
    match key:
        case "$and":
            return all(holds(each, find) for each in value)
        case "$or":
            return any(holds(each, find) for each in value)
        case "$nor":
            return not any(holds(each, find) for each in value)
        case "$not":
            return not holds(value, find)
    return meets(find(key), value)


def meets(field: Field, written: Any) -> bool:
    if isinstance(written, dict) and any(key.startswith("$") for key in written):
        return all(_operator(field, key, operand, written) for key, operand in written.items() if key != "$options")
    return _operator(field, "$eq", written, {})


def _operator(field: Field, word: str, operand: Any, beside: dict[str, Any]) -> bool:
    match word:
        case "$eq":
            return field.some(lambda v: _is(v, operand))
        case "$ne":
            return not field.some(lambda v: _is(v, operand))
        case "$in":
            return field.some(lambda v: any(_is(v, each) for each in operand))
        case "$nin":
            return not field.some(lambda v: any(_is(v, each) for each in operand))
        case "$not":
            return not meets(field, operand)
        case "$exists":
            there = any(v is not GONE if field.is_json else v is not None for v in field.found)
            return there is operand
        case "$gt":
            return field.some(lambda v: _comparable(v, operand) and _pair(v, operand)[0] > _pair(v, operand)[1])
        case "$gte":
            return field.some(lambda v: _comparable(v, operand) and _pair(v, operand)[0] >= _pair(v, operand)[1])
        case "$lt":
            return field.some(lambda v: _comparable(v, operand) and _pair(v, operand)[0] < _pair(v, operand)[1])
        case "$lte":
            return field.some(lambda v: _comparable(v, operand) and _pair(v, operand)[0] <= _pair(v, operand)[1])
        case "$between":
            low, high = operand
            return field.some(lambda v: _comparable(v, low) and exact_between(low, v, high))
        case "$regex":
            flags = sum({"i": re.I, "m": re.M, "s": re.S, "x": re.X}[f] for f in beside.get("$options", ""))
            pattern = re.sub(r"(?<!\\)\$$", r"\\Z", operand) if "m" not in beside.get("$options", "") else operand
            return field.some(
                lambda v: isinstance(v, str) and re.search(pattern.replace(r"\d", "[0-9]"), v, flags) is not None
            )
        case "$like":
            return field.some(lambda v: isinstance(v, str) and _like(operand, v))
        case "$ilike":
            return field.some(lambda v: isinstance(v, str) and _like(operand.lower(), v.lower()))
        case "$startswith":
            return field.some(lambda v: isinstance(v, str) and v.startswith(operand))
        case "$endswith":
            return field.some(lambda v: isinstance(v, str) and v.endswith(operand))
        case "$contains":
            in_array = any(same(e, operand) for v in field.found if isinstance(v, list) for e in v)
            in_text = any(isinstance(v, str) and isinstance(operand, str) and operand in v for v in field.found)
            return in_array or in_text
        case "$mod":
            return field.some(lambda v: is_number(v) and _remainder(v, operand[0]) == operand[1])
        case "$all":
            return bool(operand) and all(field.some(lambda v, e=each: _is(v, e)) for each in operand)
        case "$size":
            return any(isinstance(v, list) and len(v) == operand for v in field.found)
        case "$elemMatch":
            elements = [e for v in field.found if isinstance(v, list) for e in v]
            return any(_element(e, operand) for e in elements)
    raise AssertionError(word)


def _element(element: Any, operand: dict[str, Any]) -> bool:
    def is_about_itself(tree: dict[str, Any]) -> bool:
        words = [k for k in tree if k.startswith("$") and k not in ("$and", "$or", "$nor")]
        return is_about_itself(tree["$not"]) if words == ["$not"] else bool(words)

    if is_about_itself(operand):
        return meets(Field([element], True, unfolds=False), operand)
    if not isinstance(element, dict) and _asks_members(operand):
        return False
    return holds(operand, lambda name: Field(list(ends(element, name.split("."))), True))


def _asks_members(tree: dict[str, Any]) -> bool:
    """Whether a plain key stands anywhere in a filter over members."""
    for key, value in tree.items():
        if key in ("$and", "$or", "$nor"):
            if any(_asks_members(each) for each in value):
                return True
        elif key == "$not":
            if _asks_members(value):
                return True
        else:
            return True
    return False


def _is(value: Any, operand: Any) -> bool:
    if operand is None:
        return value is None or value is GONE
    return value is not GONE and same(value, operand)


def _comparable(value: Any, operand: Any) -> bool:
    if is_number(operand):
        return is_number(value)
    return type(value) is type(operand) and isinstance(value, (str, date, datetime))


def exact_between(low: Any, value: Any, high: Any) -> bool:
    return bool(_pair(low, value)[0] <= _pair(low, value)[1] and _pair(value, high)[0] <= _pair(value, high)[1])


def _pair(a: Any, b: Any) -> tuple[Any, Any]:
    return (exact(a), exact(b)) if Decimal in (type(a), type(b)) else (a, b)


def _remainder(value: Any, divisor: int) -> Any:
    left = abs(Decimal(repr(value)) if isinstance(value, float) else value) % abs(divisor)
    return -left if value < 0 else left


def _like(pattern: str, text: str) -> bool:
    """LIKE by dynamic programming over what is left of both."""
    parts: list[tuple[str, str]] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            parts.append(("is", pattern[at + 1]))
            at += 1
        else:
            parts.append({"%": ("run", ""), "_": ("any", "")}.get(pattern[at], ("is", pattern[at])))
        at += 1
    reached = {0}
    for word, character in parts:
        if word == "run":
            reached = set(range(min(reached), len(text) + 1)) if reached else set()
        else:
            reached = {i + 1 for i in reached if i < len(text) and (word == "any" or text[i] == character)}
    return len(text) in reached


def rounded(value: Decimal, scale: int) -> Decimal:
    """Half up, away from zero."""
    return value.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)


def direct(row: dict[str, Any], name: str) -> Any:
    """The one value at the end of a path that goes through arrays by index only; None for what is missing."""
    column, *steps = name.split(".")
    value = row[column]
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and re.fullmatch("[0-9]+", step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def rank(value: Any) -> tuple[Any, ...]:
    """What values sort by: null, then numbers, texts (by code point), booleans; arrays and objects tie."""
    if value is None:
        return (0,)
    if is_number(value):
        return (1, value)
    if isinstance(value, bool):
        return (3, value)
    return (4,) if isinstance(value, (list, dict)) else (2, value)


def group(rows: list[dict[str, Any]], names: list[str], asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The result rows of an aggregate, in no order."""
    groups: list[tuple[list[Any], list[dict[str, Any]]]] = [([], list(rows))] if not names else []
    for row in rows if names else []:
        key = [direct(row, name) for name in names]
        for known, members in groups:
            if all(map(same, known, key)):
                members.append(row)
                break
        else:
            groups.append((key, [row]))
    return [
        dict(zip(names, key, strict=True))
        | {name: _aggregate(members, *next(iter(how.items()))) for name, how in asked.items()}
        for key, members in groups
    ]


def _aggregate(rows: list[dict[str, Any]], word: str, name: str) -> Any:
    if name == "*":
        return len(rows)
    values = [value for row in rows if (value := direct(row, name)) is not None]
    match word:
        case "$count":
            return len(values)
        case "$sum":
            return sum(values)
        case "$avg" if values and isinstance(values[0], float):
            return sum(values) / len(values)
        case "$avg":
            places = 8 if name == "price" else 6
            return rounded(Decimal(sum(values)) / len(values), places) if values else None
        case "$min":
            return min(values, default=None)
        case _:
            return max(values, default=None)


class Misfit(Exception):
    """A row is not what the update needs."""


SCALES = {"price": 2}
INT64 = 2**63


def updated(row: dict[str, Any], update: dict[str, dict[str, Any]], json_columns: set[str]) -> dict[str, Any]:
    """The row after an update written as field → {operator: operand}; every value from the row before."""
    after = dict(row)
    for name, written in update.items():
        (word, operand), *_ = written.items()
        column, *steps = name.split(".")
        if column in json_columns:
            old = GONE if after[column] is None else after[column]
            new = _put(old, steps, word, operand)
            after[column] = None if new is GONE else new
        else:
            after[column] = _typed(row[column], word, operand, column)
    return after


def _typed(old: Any, word: str, operand: Any, column: str) -> Any:
    match word:
        case "$set":
            return operand
        case "$unset":
            return None
        case "$min" | "$max":
            return operand if old is None else min(old, operand) if word == "$min" else max(old, operand)
    if old is None:
        return None
    if column in SCALES:
        operand = exact(operand)
    new = old * operand if word == "$multiply" else old + (operand if word == "$inc" else -operand)
    if column in SCALES:
        new = rounded(Decimal(new), SCALES[column])
        if abs(new) >= Decimal(10) ** 10:
            raise OverflowError
    if isinstance(new, int) and not -INT64 <= new < INT64:
        raise OverflowError
    if isinstance(new, float) and new in (float("inf"), float("-inf")):
        raise OverflowError
    return new


def _put(old: Any, steps: list[str], word: str, operand: Any) -> Any:
    lazy = word in ("$unset", "$pull")
    if not steps:
        return _leaf(old, word, operand)
    step = steps[0]
    if old is GONE:
        return GONE if lazy else {step: _put(GONE, steps[1:], word, operand)}
    if isinstance(old, dict):
        new = dict(old)
        inner = _put(old.get(step, GONE), steps[1:], word, operand)
        if inner is GONE:
            new.pop(step, None)
        else:
            new[step] = inner
        return new
    if isinstance(old, list) and re.fullmatch("[0-9]+", step):
        at = int(step)
        if at < len(old):
            inner = _put(old[at], steps[1:], word, operand)
            return [*old[:at], None if inner is GONE else inner, *old[at + 1 :]]
        if at == len(old) and len(steps) == 1 and not lazy:
            return [*old, _put(GONE, [], word, operand)]
    if lazy:
        return old
    raise Misfit


def _leaf(old: Any, word: str, operand: Any) -> Any:
    match word:
        case "$set":
            return operand
        case "$unset":
            return GONE
        case "$inc" | "$dec" | "$multiply":
            if old is GONE:
                return {"$inc": operand, "$dec": -operand, "$multiply": 0}[word]
            if not is_number(old):
                raise Misfit
            a, b = exact(old), exact(operand)
            new = Decimal(a) * b if word == "$multiply" else Decimal(a) + (b if word == "$inc" else -b)
            if new == int(new) and -INT64 <= new < INT64:
                return int(new)
            if new == int(new) and a == int(a) and b == int(b):
                raise OverflowError
            if float(new) in (float("inf"), float("-inf")):
                raise OverflowError
            return float(new)
        case "$min" | "$max":
            if old is GONE or old is None:
                return operand
            if is_number(old) is not is_number(operand) or not (is_number(old) or isinstance(old, str)):
                raise Misfit
            return min(old, operand) if word == "$min" else max(old, operand)
    if old is GONE:
        return GONE if word == "$pull" else [operand]
    if not isinstance(old, list):
        raise Misfit
    if word == "$pull":
        return [item for item in old if not same(item, operand)]
    return old if word == "$addToSet" and any(same(item, operand) for item in old) else [*old, operand]
