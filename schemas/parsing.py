"""What a literal, or a value that arrived, means in a place of some type. `parse_value` is the one place where text
turns into a value. It also takes values that arrive while a run goes on (`Delivered`) and connections (`Connection`),
so that all of them are judged by the same rules with the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isfinite
from uuid import UUID

from schemas.base import Scalar
from schemas.jsonvalues import json_value
from schemas.literals import PARSERS, describe, parse_date, parse_datetime, parse_decimal, parse_time, parse_uuid
from schemas.types import (
    INTEGER_MAX,
    INTEGER_MIN,
    Connection,
    Delivered,
    ValueProblem,
    ValueType,
    instant,
    type_word,
    widens,
)


def parse_value(kind: ValueType, raw: object, *, to_scale: bool = True) -> object:
    """The value that `raw` stands for in a place of type `kind`; a `Connection` that fits comes back as it is.

    raw: a `Scalar`, None, a list or mapping of them, a `Connection`, or a `Delivered` value.
    to_scale: refuse decimals and texts that are longer than the type allows (False for operands of filters).

    Raises `ValueProblem` with the path of the part at fault. Messages never show delivered values.
    """
    if isinstance(raw, Connection):
        if not widens(raw.type, kind):
            raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted {kind}", kind="connection")
        return raw
    if isinstance(raw, Delivered):
        return deliver(kind, raw.value, to_scale=to_scale)
    if raw is None:
        if kind.nullable or kind.kind in ("json", "any"):
            return None
        raise ValueProblem(f"wants {kind}, got null")
    if isinstance(raw, Mapping) and set(raw) == {"$literal"}:
        return parse_value(kind, raw["$literal"], to_scale=to_scale)
    parser = PARSERS.get(kind.kind)
    if parser is not None:
        if not isinstance(raw, str):
            shape = "a mapping" if isinstance(raw, Mapping) else "a list" if isinstance(raw, list) else repr(raw)
            raise ValueProblem(f"wants {kind}, got {shape}")
        value = parser(raw, kind)
        if value is None:
            raise ValueProblem(f"wants {describe(kind)}, got {_quoted(raw)}")
        return _fit(kind, value, to_scale)
    return _parse_container(kind, raw)


def _parse_container(kind: ValueType, raw: object) -> object:
    match kind.kind:
        case "list":
            if not isinstance(raw, list):
                raise ValueProblem(f"wants a {kind}, got {'a mapping' if isinstance(raw, Mapping) else 'one value'}")
            items = kind.items or ValueType("any")
            return [_under(index, items, item) for index, item in enumerate(raw)]
        case "rows":
            if not isinstance(raw, list):
                raise ValueProblem("wants a list of rows, each a mapping")
            row = ValueType("record", fields=kind.fields)
            return [_under(index, row, item) for index, item in enumerate(raw)]
        case "record":
            if not isinstance(raw, Mapping):
                raise ValueProblem(f"wants a mapping, got {'a list' if isinstance(raw, list) else _quoted(raw)}")
            if kind.fields is None:
                return {key: _under(key, ValueType("any", nullable=True), value) for key, value in raw.items()}
            for key in raw:
                if key not in kind.fields:
                    from difflib import get_close_matches

                    close = get_close_matches(key, kind.fields, n=1)
                    fix = f"did you mean {close[0]}?" if close else "one of: " + ", ".join(kind.fields)
                    raise ValueProblem(f"{key!r} is not a field here", (key,), fix=fix, key=True, kind="name")
            for name, wanted in kind.fields.items():
                if name not in raw and not wanted.nullable:
                    raise ValueProblem(f"{name!r} is missing")
            return {name: _under(name, wanted, raw.get(name)) for name, wanted in kind.fields.items()}
        case "json":
            return json_value(plain_value(raw))
        case "any":
            return plain_value(raw)
        case _:
            raise ValueProblem(f"a {kind.kind} cannot be written as a literal", fix="connect it under inputs")


def _under(step: str | int, kind: ValueType, raw: object) -> object:
    try:
        return parse_value(kind, raw)
    except ValueProblem as problem:
        raise problem.under(step) from None


def plain_value(raw: object) -> object:
    """`raw` read by YAML 1.2's core rules, for places that take any value: null, booleans, whole numbers, floats,
    text. Connections inside stay."""
    if isinstance(raw, Mapping):
        if set(raw) == {"$literal"}:
            return str(raw["$literal"])
        return {str(key): plain_value(value) for key, value in raw.items()}
    if isinstance(raw, list):
        return [plain_value(item) for item in raw]
    if isinstance(raw, Delivered):
        return raw.value
    if not isinstance(raw, Scalar) or not raw.plain:
        return str(raw) if isinstance(raw, str) else raw
    if raw in ("true", "True", "TRUE"):
        return True
    if raw in ("false", "False", "FALSE"):
        return False
    if re.fullmatch(r"[-+]?[0-9]{1,4000}", raw):
        if not INTEGER_MIN <= int(raw) <= INTEGER_MAX:
            raise ValueProblem("wants a whole number of at most 64 bits")
        return int(raw)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", raw):
        return float(raw)
    return str(raw)


def deliver(kind: ValueType, value: object, *, to_scale: bool = True) -> object:
    """A value that arrived at run time, as the type wants it. Raises `ValueProblem` without showing the value."""
    if value is None:
        if kind.nullable or kind.kind in ("json", "any"):
            return None
        raise ValueProblem(f"wants {kind}, got null")
    result: object = None
    match kind.kind:
        case "any" | "rows" | "secret":
            return value
        case "json":
            return json_value(value)
        case "string" | "text":
            result = str(value) if isinstance(value, (str, UUID)) else None
        case "integer":
            if isinstance(value, int) and not isinstance(value, bool):
                result = value
            elif isinstance(value, (float, Decimal)) and _is_whole(value):
                result = int(value)
        case "float":
            if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
                result = _double(value)
        case "decimal":
            if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
                result = Decimal(value)
            elif isinstance(value, float):
                result = Decimal(repr(value))
            elif isinstance(value, str):
                result = parse_decimal(value, kind)
        case "boolean":
            result = value if isinstance(value, bool) else None
        case "date":
            if isinstance(value, str):
                result = parse_date(value, kind)
            elif isinstance(value, date) and not isinstance(value, datetime):
                result = value
        case "datetime":
            if isinstance(value, str):
                result = parse_datetime(value, kind)
            elif isinstance(value, datetime):
                result = _instant_or_none(value)
            elif isinstance(value, date):
                result = datetime(value.year, value.month, value.day, tzinfo=UTC)
        case "time":
            result = parse_time(value, kind) if isinstance(value, str) else value if isinstance(value, time) else None
        case "uuid":
            result = value if isinstance(value, UUID) else parse_uuid(value, kind) if isinstance(value, str) else None
        case "bytes":
            result = bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None
        case "enum":
            result = value if isinstance(value, str) and value in kind.values else None
        case "list":
            if isinstance(value, (list, tuple)):
                items = kind.items or ValueType("any", nullable=True)
                return [_deliver_under(index, items, item) for index, item in enumerate(value)]
        case "record":
            if isinstance(value, Mapping):
                if kind.fields is None:
                    return dict(value)
                return {n: _deliver_under(n, wanted, value.get(n)) for n, wanted in kind.fields.items()}
    if result is None:
        raise ValueProblem(f"wants {describe(kind)}, got {type_word(value)}")
    return _fit(kind, result, to_scale)


def _deliver_under(step: str | int, kind: ValueType, value: object) -> object:
    try:
        return deliver(kind, value)
    except ValueProblem as problem:
        raise problem.under(step) from None


def _fit(kind: ValueType, value: object, to_scale: bool) -> object:
    """The value if it keeps the limits of its type, else a `ValueProblem`."""
    if isinstance(value, str):
        if (
            "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)
            if not value.isascii() or "\x00" in value
            else False
        ):
            raise ValueProblem("text with a NUL character or a lone surrogate cannot be stored")
        if to_scale and kind.max_length is not None and len(value) > kind.max_length:
            raise ValueProblem(f"text of {len(value)} characters, at most {kind.max_length} are allowed")
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int):
        if to_scale and not INTEGER_MIN <= value <= INTEGER_MAX:
            raise ValueProblem("wants a whole number of at most 64 bits")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueProblem("NaN and the infinities are not allowed")
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueProblem("NaN and the infinities are not allowed")
        if to_scale and kind.kind == "decimal" and kind.precision is not None:
            _fit_decimal(value, kind.precision, kind.scale or 0)
    return value


def _fit_decimal(value: Decimal, precision: int, scale: int) -> None:
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    if exponent < -scale and value.normalize().as_tuple().exponent < -scale:  # type: ignore[operator]
        raise ValueProblem(f"more than {scale} digits after the point, {scale} are kept")
    if value and len(digits) + exponent > precision - scale:
        raise ValueProblem(f"more than {precision - scale} digits before the point")


def _quoted(raw: object) -> str:
    text = str(raw)
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _is_whole(value: float | Decimal) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite() and value.adjusted() < 4_000 and value == int(value)
    return isfinite(value) and value == int(value)


def _double(value: int | float | Decimal) -> float:
    """The nearest double; an infinity for what is none, which is refused later."""
    try:
        return float(value) + 0.0  # a nought has no sign
    except (OverflowError, ValueError):
        return float("inf")


def _instant_or_none(value: datetime) -> datetime | None:
    """The same moment in UTC, None where its offset leads out of the years 1 to 9999."""
    try:
        return instant(value)
    except OverflowError:
        return None
