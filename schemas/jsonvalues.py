"""JSON values: what a json column keeps, made from literals and from what arrives at run time.

Numbers are whole numbers of 64 bits or doubles; dates, datetimes, times and UUIDs are texts (JSON has none).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from schemas.types import INTEGER_MAX, INTEGER_MIN, Connection, ValueProblem, instant, type_word

DEEPEST = 100


def json_value(value: object, depth: int = 0) -> object:
    """The value as JSON has it; a `Connection` in it stays until its value is there.

    Raises `ValueProblem` with the path of the part that is not JSON. Messages never show the value.
    """
    if depth > DEEPEST:
        raise ValueProblem(f"json may be nested {DEEPEST} deep")
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, Connection)):
        return value
    if isinstance(value, (int, float, Decimal)):
        return _number(value)
    if isinstance(value, datetime):
        try:
            return instant(value).isoformat().replace("+00:00", "Z")
        except OverflowError:
            raise ValueProblem("wants a datetime of the years 1 to 9999") from None
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): _under(key, inner, depth) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_under(index, inner, depth) for index, inner in enumerate(value)]
    raise ValueProblem(f"wants json, got {type_word(value)}")


def _under(step: str | int, value: object, depth: int) -> object:
    try:
        return json_value(value, depth + 1)
    except ValueProblem as problem:
        raise problem.under(step) from None


def _text(text: str) -> str:
    if "\x00" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise ValueProblem("text with a NUL character or a lone surrogate cannot be stored")
    return str(text)


def _number(value: int | float | Decimal) -> int | float:
    if isinstance(value, int):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise ValueProblem("wants a whole number of at most 64 bits")
        return value
    if not (value.is_finite() if isinstance(value, Decimal) else isfinite(value)):
        raise ValueProblem("NaN and the infinities are not allowed")
    if isinstance(value, Decimal) and INTEGER_MIN <= value <= INTEGER_MAX and value == int(value):
        return int(value)
    number = float(value)
    if number in (float("inf"), float("-inf")):
        raise ValueProblem("a number beyond the range of a double")
    return number


def is_number(value: object) -> bool:
    """Whether the JSON value is a number; a boolean is none."""
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def canonical(value: Any) -> str:
    """The one text of all JSON values that are equal: keys in order, 5.0 written as 5.

    >>> canonical({"b": 5.0, "a": [True, None]})
    '{"a":[true,null],"b":5}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
