"""Literals: the text of a scalar becomes a value of one kind, or None where it is none. Knows no limits of a type and
no containers; `parsing` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from uuid import UUID

from schemas.base import Scalar
from schemas.types import ValueType, instant


def describe(kind: ValueType) -> str:
    """What a literal of this type looks like, for messages."""
    words = {
        "integer": "a whole number", "float": "a number", "decimal": "a decimal number",
        "boolean": "true or false", "date": "a date (YYYY-MM-DD)", "time": "a time (HH:MM:SS)",
        "datetime": "a datetime (ISO 8601, such as 2026-01-31T10:00:00Z)", "uuid": "a UUID",
        "bytes": "base64 text",
    }  # fmt: skip
    if kind.kind == "enum":
        return "one of " + ", ".join(kind.values)
    return words.get(kind.kind, str(kind.required()))


def _plain(raw: str) -> bool:
    return not isinstance(raw, Scalar) or raw.plain


def parse_text(raw: str, _: ValueType) -> str:
    return str(raw)


def parse_integer(raw: str, _: ValueType) -> int | None:
    return int(raw) if _plain(raw) and re.fullmatch(r"[-+]?[0-9]{1,4000}", raw) else None


def parse_float(raw: str, _: ValueType) -> float | None:
    ok = _plain(raw) and re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", raw)
    return float(raw) + 0.0 if ok else None  # a nought has no sign


def parse_decimal(raw: str, _: ValueType) -> Decimal | None:
    if not re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", raw) or len(raw) > 1000:
        return None
    try:
        return Decimal(raw)
    except InvalidOperation:
        return None


def parse_boolean(raw: str, _: ValueType) -> bool | None:
    return {"true": True, "false": False}.get(raw) if _plain(raw) else None


def parse_date(raw: str, _: ValueType) -> date | None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", raw):
        return None
    try:
        return date.fromisoformat(raw)
    except ValueError:
        return None


def parse_time(raw: str, _: ValueType) -> time | None:
    if not re.fullmatch(r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", raw):
        return None
    try:
        return time.fromisoformat(raw)
    except ValueError:
        return None


def parse_datetime(raw: str, _: ValueType) -> datetime | None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)? ?([Zz]|[-+]\d{2}(:?\d{2})?)?)?", raw):
        return None
    try:
        value = datetime.fromisoformat(raw.replace(" +", "+").replace(" -", "-").replace(" Z", "Z").upper())
        return instant(value)
    except (ValueError, OverflowError):
        return None


def parse_uuid(raw: str, _: ValueType) -> UUID | None:
    try:
        return UUID(raw) if re.fullmatch(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", raw) else None
    except ValueError:
        return None


def parse_bytes(raw: str, _: ValueType) -> bytes | None:
    import base64
    import binascii

    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        return None


def parse_enum(raw: str, kind: ValueType) -> str | None:
    return str(raw) if raw in kind.values else None


PARSERS: Mapping[str, Callable[[str, ValueType], object]] = {
    "string": parse_text, "text": parse_text, "integer": parse_integer, "float": parse_float,
    "decimal": parse_decimal, "boolean": parse_boolean, "date": parse_date, "time": parse_time,
    "datetime": parse_datetime, "uuid": parse_uuid, "bytes": parse_bytes, "enum": parse_enum,
}  # fmt: skip
