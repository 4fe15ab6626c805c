"""A value of one kind as a value of another, for SQLite, whose own CAST makes 12 of '12abc' and 0 of 'xyz'.

Two functions are added to a connection: `dfrun_cast(value, from, to)` and `dfrun_casts`, which says whether the first
would succeed without loss. Kinds are spelled as the columns say them: `decimal(12,2)`, `date`, `text`.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from uuid import UUID

from runner.dialects.types import from_sqlite, to_sqlite
from schemas.base import Scalar
from schemas.parsing import parse_value
from schemas.types import INTEGER_MAX, INTEGER_MIN, Kind, ValueProblem, ValueType

_BARE = {"INTEGER": "integer", "INT": "integer", "REAL": "float", "BLOB": "bytes"}


def kind_of(column_type: str) -> str:
    """What a column keeps, from its type and the note behind it.

    >>> kind_of("INTEGER /* decimal(12,2) */"), kind_of("TEXT")
    ('decimal(12,2)', 'text')
    """
    noted = re.search(r"/\*\s*(.*?)\s*\*/", column_type)
    return noted[1] if noted else _BARE.get(column_type, "text")


def convert(value: Any, source: str, target: str) -> Any:
    """The stored value of kind `source` as a stored value of kind `target`; None stays None.

    Raises `ValueError` when there is none, or only one that loses something.
    """
    if value is None:
        return None
    kind = _kind(target)
    try:
        native = from_sqlite(_kind(source), value)
        return to_sqlite(kind, _turned(native, kind))
    except (ValueProblem, InvalidOperation, OverflowError, TypeError) as error:
        raise ValueError(f"no {target} is equal to this {source}") from error


def _turned(value: Any, kind: ValueType) -> Any:
    match kind.kind:
        case "text":
            return _text(value)
        case "integer":
            number = int(_text(value)) if isinstance(value, str) else _number(value)
            return _same(int(number), number, INTEGER_MIN <= number <= INTEGER_MAX)
        case "float":
            number = Decimal(value.strip()) if isinstance(value, str) else _number(value)
            return _same(float(number), number, isinstance(value, (str, float)) or Decimal(float(number)) == number)
        case "decimal":
            number = Decimal(value.strip()) if isinstance(value, str) else Decimal(str(_number(value)))
            digits = (kind.precision or 0) - (kind.scale or 0)
            unit = Decimal(1).scaleb(-(kind.scale or 0))
            return _same(number, number.quantize(unit), abs(number) < Decimal(10) ** digits)
        case "boolean":
            if isinstance(value, str):
                return parse_value(kind, Scalar(value.strip().lower()))
            return _same(bool(_number(value)), _number(value), True)
        case "json":
            return json.loads(value) if isinstance(value, str) else _plain(value)
        case "bytes":
            return bytes.fromhex(value) if isinstance(value, str) else _only(value, bytes)
        case "date":
            if isinstance(value, datetime):
                return _same(value.date(), value.date(), value.astimezone(UTC).time() == time(0))
            return parse_value(kind, Scalar(value)) if isinstance(value, str) else _only(value, date)
        case "datetime":
            if isinstance(value, date) and not isinstance(value, datetime):
                return datetime(value.year, value.month, value.day, tzinfo=UTC)
            return parse_value(kind, Scalar(value)) if isinstance(value, str) else _only(value, datetime)
        case "uuid":
            return UUID(value) if isinstance(value, str) else _only(value, UUID)
        case "time":
            return parse_value(kind, Scalar(value)) if isinstance(value, str) else _only(value, time)
        case _:
            raise AssertionError(f"no column keeps {kind}")


def _number(value: Any) -> Any:
    if isinstance(value, (bool, int, float, Decimal)):
        return int(value) if isinstance(value, bool) else value
    raise ValueError("not a number")


def _same(turned: Any, value: Any, fits: bool) -> Any:
    if not fits or turned != value:
        raise ValueError("something would be lost")
    return turned


def _only(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError("of another kind")
    return value


def _text(value: Any) -> str:
    match value:
        case str():
            return value.strip() if value.strip().lstrip("+-").isdigit() else value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return format(value, "f")
        case bytes():
            return value.hex()
        case datetime():
            return value.astimezone(UTC).isoformat(" ")
        case date() | time():
            return value.isoformat()
        case int() | float() | UUID():
            return str(value)
        case _:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, list, dict)) or value is None else _text(value)


@lru_cache(maxsize=256)
def _kind(text: str) -> ValueType:
    name, _, sizes = text.partition("(")
    precision, scale = (int(part) for part in sizes.rstrip(")").split(",")) if sizes else (None, None)
    kinds: dict[str, Kind] = {"string": "text", "enum": "text", "list": "json"}
    kind: Any = kinds.get(name, name)
    return ValueType(kind, precision=precision, scale=scale)


def _casts(value: Any, source: str, target: str) -> int:
    try:
        convert(value, source, target)
    except (ValueError, ArithmeticError):
        return 0
    return 1


async def register_conversions(driver: Any) -> None:
    """Add the functions to a connection of aiosqlite."""
    await driver.create_function("dfrun_cast", 3, convert, deterministic=True)
    await driver.create_function("dfrun_casts", 3, _casts, deterministic=True)
