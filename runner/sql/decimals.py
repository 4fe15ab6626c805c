"""Exact decimal arithmetic for SQLite, whose decimals are whole numbers of their smallest unit: functions it calls.

Arguments are units and their scale, or a decimal as text (scale -1). Rounding is half up, away from zero, as
PostgreSQL's numeric rounds.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from math import fmod, isfinite
from typing import Any

_EXACT = Context(prec=200)
_LARGEST = 10**18


def change(operator: str, left: Any, left_scale: int, right: Any, right_scale: int, scale: int) -> int | None:
    """`left operator right` in units of `scale`; None when one of the two is null.

    Raises ArithmeticError past 18 digits.
    """
    if left is None or right is None:
        return None
    a, b = _value(left, left_scale), _value(right, right_scale)
    match operator:
        case "$add":
            result = _EXACT.add(a, b)
        case "$subtract":
            result = _EXACT.subtract(a, b)
        case _:
            result = _EXACT.multiply(a, b)
    return _units(result, scale)


def total(upper: int | None, lower: int | None, is_number: int) -> int | str:
    """What values add up to, from the sums of their upper and lower 32 bits; 0 of no values."""
    return _number((upper or 0) * 2**32 + (lower or 0), is_number)


def average(upper: int | None, lower: int | None, count: int, digits: int, is_number: int) -> int | str | None:
    """The mean of `count` values whose units add up to these halves, with so many digits more; None of no values."""
    if upper is None or lower is None or not count:
        return None
    units = upper * 2**32 + lower
    mean = (abs(units) * 2 * 10**digits + count) // (2 * count)
    return _number(-mean if units < 0 else mean, is_number)


def _number(value: int, is_number: int) -> int | str:
    """The number; as text where it has more than 64 bits. Raises ArithmeticError where it must be a number."""
    if -(2**63) <= value < 2**63:
        return value
    if is_number:
        raise ArithmeticError("a whole number beyond 64 bits")
    return str(value)


def remainder(number: float | None, divisor: int) -> float | None:
    """What is left of a division, with the sign of the number; exact for fractions, too."""
    if isinstance(number, int):
        left = abs(number) % abs(divisor)
        return -left if number < 0 else left
    return None if number is None else fmod(number, divisor)


def finite(number: float | None) -> float | None:
    """The number. Raises ArithmeticError for an infinity, which SQLite hands on instead of stopping."""
    if number is not None and not isfinite(number):
        raise ArithmeticError("beyond the range of a double")
    return number


def overflow() -> None:
    """Raises ArithmeticError: a whole number has grown beyond 64 bits."""
    raise ArithmeticError("a whole number beyond 64 bits")


def _value(given: Any, scale: int) -> Decimal:
    return Decimal(given) if scale < 0 else Decimal(given).scaleb(-scale, _EXACT)


def _units(value: Decimal, scale: int) -> int:
    return _bounded(int(_EXACT.scaleb(value, scale).quantize(Decimal(1), ROUND_HALF_UP, _EXACT)))


def _bounded(units: int) -> int:
    if abs(units) >= _LARGEST:
        # sqlite3 takes an OverflowError for a text that is too long
        raise ArithmeticError("a decimal of more than 18 digits")
    return units
