"""Changes inside JSON values where no database makes them: the functions that SQLite calls.

A change makes missing objects on its way; numbers are added and multiplied exactly, and kept as a whole number of 64
bits or the nearest double. `runner.sql.jsonchange` has PostgreSQL do the same in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

from schemas.jsonvalues import canonical, is_number
from schemas.paths import is_index
from schemas.types import INTEGER_MAX, INTEGER_MIN

_EXACT = Context(prec=1_200)
_GONE = object()


class MisfitError(ValueError):
    """What stands in a row's JSON is not what the change wants there."""


def change_document(document: str | None, changes: str) -> str | None:
    """The JSON text after the changes (a JSON list of [steps, operator, operands]).

    Raises `MisfitError` where one of them does not fit, `ArithmeticError` where a number grows too large.
    """
    value = _GONE if document is None else json.loads(document)
    for steps, operator, operands in json.loads(changes):
        value = _changed(value, steps, operator, operands[0] if operands else None)
    return None if value is _GONE else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def misfit_number(document: str | None, changes: str) -> int | None:
    """The number of the first change that does not fit the JSON of this row; None when all do."""
    value = _GONE if document is None else json.loads(document)
    for number, (steps, operator, operands) in enumerate(json.loads(changes)):
        try:
            _changed(value, steps, operator, operands[0] if operands else None)
        except MisfitError:
            return number
        except ArithmeticError:
            continue
    return None


def _changed(here: Any, steps: list[str], operator: str, operand: Any) -> Any:
    """The value with the end of the path changed; the containers on the way are new ones."""
    if not steps:
        return _OPERATIONS[operator](here, operand)
    step, rest = steps[0], steps[1:]
    removes = operator in ("$unset", "$pull")
    if here is _GONE:
        return here if removes else {step: _changed(_GONE, rest, operator, operand)}
    if isinstance(here, dict):
        inner = _changed(here.get(step, _GONE), rest, operator, operand)
        if inner is _GONE:
            return {key: value for key, value in here.items() if key != step}
        return here | {step: inner}
    if isinstance(here, list) and is_index(step) and len(step) < 10 and int(step) <= len(here):
        at = int(step)
        if at < len(here):
            inner = _changed(here[at], rest, operator, operand)
            return [*here[:at], None if inner is _GONE else inner, *here[at + 1 :]]
        if not removes and not rest:
            return [*here, _changed(_GONE, rest, operator, operand)]
    if removes:
        return here
    raise MisfitError


def _arithmetic(exact: Callable[[Decimal, Decimal], Decimal], missing: Callable[[Any], Any]) -> Callable[..., Any]:
    def operation(here: Any, operand: Any) -> Any:
        if here is _GONE:
            return missing(operand)
        if not is_number(here):
            raise MisfitError
        a, b = Decimal(repr(here)), Decimal(repr(operand))
        return _kept(exact(a, b), _is_whole(a) and _is_whole(b))

    return operation


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value(context=_EXACT)


def _kept(result: Decimal, of_whole: bool) -> int | float:
    if _is_whole(result):
        if INTEGER_MIN <= result <= INTEGER_MAX:
            return int(result)
        if of_whole:
            raise ArithmeticError("a whole number beyond 64 bits")
    number = float(result)
    if number in (float("inf"), float("-inf")) or (result and not number):
        raise ArithmeticError("a number beyond the range of a double")
    return number


def _extreme(is_better: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    def operation(here: Any, operand: Any) -> Any:
        if here is _GONE or here is None:
            return operand
        if is_number(here) != is_number(operand) or not (is_number(here) or isinstance(here, str)):
            raise MisfitError
        return operand if is_better(operand, here) else here

    return operation


def _array(here: Any) -> list[Any]:
    if not isinstance(here, list):
        raise MisfitError
    return here


def _push(here: Any, operand: Any) -> Any:
    return [operand] if here is _GONE else [*_array(here), operand]


def _add_to_set(here: Any, operand: Any) -> Any:
    if here is _GONE:
        return [operand]
    return here if any(canonical(item) == canonical(operand) for item in _array(here)) else [*here, operand]


def _pull(here: Any, operand: Any) -> Any:
    return here if here is _GONE else [item for item in _array(here) if canonical(item) != canonical(operand)]


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "$set": lambda here, operand: operand,
    "$unset": lambda here, operand: _GONE,
    "$add": _arithmetic(_EXACT.add, lambda operand: operand),
    "$subtract": _arithmetic(_EXACT.subtract, lambda operand: -operand),
    "$multiply": _arithmetic(_EXACT.multiply, lambda operand: 0),
    "$min": _extreme(lambda new, old: new < old),
    "$max": _extreme(lambda new, old: new > old),
    "$push": _push,
    "$addToSet": _add_to_set,
    "$pull": _pull,
}
