"""The types of values: what a field, a parameter or a port holds, and how the text of a literal becomes it.

`parse_value` is the one place where text turns into a value. It also takes values that arrive while a run goes on
(`Delivered`) and connections (`Connection`), so that both are judged by the same rules with the same words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Literal
from uuid import UUID

from schemas.base import Scalar

Kind = Literal[
    "string", "text", "integer", "float", "decimal", "boolean", "date", "time", "datetime", "uuid", "json",
    "bytes", "enum", "list", "record", "rows", "any", "secret",
]  # fmt: skip

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
DECIMAL_PRECISION, DECIMAL_SCALE = 18, 6
"""What `decimal` means without `precision` and `scale`; 18 digits is what SQLite keeps exactly (see docs)."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """One type. Which attributes count depends on `kind`: `items` for list; `fields` for record and rows, where
    None means that the fields are not known before the run; `values` for enum."""

    kind: Kind
    nullable: bool = False
    max_length: int | None = None
    precision: int | None = None
    scale: int | None = None
    values: tuple[str, ...] = ()
    items: ValueType | None = None
    fields: Mapping[str, ValueType] | None = field(default=None, hash=False)

    def __str__(self) -> str:
        mark = "?" if self.nullable else ""
        match self.kind:
            case "decimal" if self.precision is not None:
                return f"decimal({self.precision},{self.scale}){mark}"
            case "enum":
                return f"enum[{', '.join(self.values)}]{mark}"
            case "list":
                return f"list of {self.items or 'any'}{mark}"
            case "record" | "rows" if self.fields is not None:
                names = ", ".join(list(self.fields)[:6]) + (", …" if len(self.fields) > 6 else "")
                return f"{self.kind} ({names}){mark}"
            case _:
                return self.kind + mark

    def optional(self) -> ValueType:
        """The same type with null allowed."""
        return self if self.nullable else replace(self, nullable=True)

    def required(self) -> ValueType:
        """The same type without null."""
        return replace(self, nullable=False) if self.nullable else self


@dataclass(frozen=True, slots=True)
class Connection:
    """A reference that stands where a value will arrive: `text` as written, `type` of what it delivers."""

    text: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Delivered:
    """A value that a connection or a run parameter brought; a mapping in it is plain data, never operators. `type` is
    what the connection promised, None where nothing did."""

    value: object
    type: ValueType | None = None


class ValueProblem(ValueError):
    """A value does not fit. `path` leads from where parsing began to the place at fault; `key` is True where the
    key itself is wrong rather than its value. `kind` sorts it for the problem code: "value", "connection", "shape"
    (malformed), "name" (unknown field, operator or key). `others` were found beside it, in the order of the file."""

    def __init__(
        self, what: str, path: tuple[str | int, ...] = (), *, fix: str = "", why: str = "", key: bool = False,
        kind: Literal["value", "connection", "shape", "name"] = "value",
    ) -> None:  # fmt: skip
        super().__init__(what)
        self.what = what
        self.path = path
        self.fix = fix
        self.why = why
        self.key = key
        self.kind: Literal["value", "connection", "shape", "name"] = kind
        self.others: tuple[ValueProblem, ...] = ()

    def under(self, *steps: str | int) -> ValueProblem:
        """The same problem, and its others, seen from further up."""
        for each in self.all():
            each.path = (*steps, *each.path)
        return self

    def all(self) -> tuple[ValueProblem, ...]:
        """This problem and those beside it."""
        return (self, *self.others)


def widens(source: ValueType, target: ValueType) -> bool:
    """Whether a value of `source` may flow into `target` without loss: same type, integer → decimal or float
    column, enum → string, `T` → `T?`, list of records → rows, anything → any."""
    if target.kind == "any":
        return source.kind != "secret"
    if source.nullable and not target.nullable:
        return False
    if source.kind == "any":
        return True  # judged when the value is there
    if source.kind == "secret" or target.kind == "secret":
        return source.kind == target.kind
    pair = (source.kind, target.kind)
    if pair in _WIDENINGS:
        return True
    if pair == ("enum", "enum"):
        return set(source.values) <= set(target.values)
    if pair == ("list", "list"):
        return source.items is None or target.items is None or widens(source.items, target.items)
    if pair == ("list", "rows"):
        return source.items is None or (
            source.items.kind in ("record", "json", "any") and _fields_widen(source.items, target)
        )
    if pair in (("rows", "rows"), ("record", "record"), ("rows", "list")):
        return pair[1] == "list" or _fields_widen(source, target)
    if target.kind == "json":
        return source.kind in ("json", "string", "text", "integer", "float", "boolean", "enum", "list", "record")
    return source.kind == target.kind


_WIDENINGS = {
    ("string", "text"), ("text", "string"), ("enum", "string"), ("enum", "text"), ("uuid", "string"),
    ("integer", "decimal"), ("integer", "float"),
}  # fmt: skip


def _fields_widen(source: ValueType, target: ValueType) -> bool:
    if source.fields is None or target.fields is None:
        return True
    return all(
        (name in source.fields and widens(source.fields[name], wanted))
        or (name not in source.fields and wanted.nullable)
        for name, wanted in target.fields.items()
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
    parser = _PARSERS.get(kind.kind)
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
            from schemas.jsonvalues import json_value

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


def _quoted(raw: object) -> str:
    text = str(raw)
    return repr(text if len(text) <= 40 else text[:39] + "…")


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


# --- from text ------------------------------------------------------------------------------------------------


def _plain(raw: str) -> bool:
    return not isinstance(raw, Scalar) or raw.plain


def _parse_text(raw: str, _: ValueType) -> str:
    return str(raw)


def _parse_integer(raw: str, _: ValueType) -> int | None:
    return int(raw) if _plain(raw) and re.fullmatch(r"[-+]?[0-9]{1,4000}", raw) else None


def _parse_float(raw: str, _: ValueType) -> float | None:
    ok = _plain(raw) and re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", raw)
    return float(raw) + 0.0 if ok else None  # a nought has no sign


def _parse_decimal(raw: str, _: ValueType) -> Decimal | None:
    if not re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", raw) or len(raw) > 1000:
        return None
    try:
        return Decimal(raw)
    except InvalidOperation:
        return None


def _parse_boolean(raw: str, _: ValueType) -> bool | None:
    return {"true": True, "false": False}.get(raw) if _plain(raw) else None


def _parse_date(raw: str, _: ValueType) -> date | None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", raw):
        return None
    try:
        return date.fromisoformat(raw)
    except ValueError:
        return None


def _parse_time(raw: str, _: ValueType) -> time | None:
    if not re.fullmatch(r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", raw):
        return None
    try:
        return time.fromisoformat(raw)
    except ValueError:
        return None


def _parse_datetime(raw: str, _: ValueType) -> datetime | None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)? ?([Zz]|[-+]\d{2}(:?\d{2})?)?)?", raw):
        return None
    try:
        value = datetime.fromisoformat(raw.replace(" +", "+").replace(" -", "-").replace(" Z", "Z").upper())
        return instant(value)
    except (ValueError, OverflowError):
        return None


def _parse_uuid(raw: str, _: ValueType) -> UUID | None:
    try:
        return UUID(raw) if re.fullmatch(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", raw) else None
    except ValueError:
        return None


def _parse_bytes(raw: str, _: ValueType) -> bytes | None:
    import base64
    import binascii

    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        return None


def _parse_enum(raw: str, kind: ValueType) -> str | None:
    return str(raw) if raw in kind.values else None


_PARSERS: Mapping[str, Callable[[str, ValueType], object]] = {
    "string": _parse_text, "text": _parse_text, "integer": _parse_integer, "float": _parse_float,
    "decimal": _parse_decimal, "boolean": _parse_boolean, "date": _parse_date, "time": _parse_time,
    "datetime": _parse_datetime, "uuid": _parse_uuid, "bytes": _parse_bytes, "enum": _parse_enum,
}  # fmt: skip


def instant(value: datetime) -> datetime:
    """The same moment in UTC; no offset means UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


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


# --- values that are already there ----------------------------------------------------------------------------


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
            from schemas.jsonvalues import json_value

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
                result = _parse_decimal(value, kind)
        case "boolean":
            result = value if isinstance(value, bool) else None
        case "date":
            if isinstance(value, str):
                result = _parse_date(value, kind)
            elif isinstance(value, date) and not isinstance(value, datetime):
                result = value
        case "datetime":
            if isinstance(value, str):
                result = _parse_datetime(value, kind)
            elif isinstance(value, datetime):
                result = _instant_or_none(value)
            elif isinstance(value, date):
                result = datetime(value.year, value.month, value.day, tzinfo=UTC)
        case "time":
            result = _parse_time(value, kind) if isinstance(value, str) else value if isinstance(value, time) else None
        case "uuid":
            result = value if isinstance(value, UUID) else _parse_uuid(value, kind) if isinstance(value, str) else None
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


def type_word(value: object) -> str:
    """The name of a value's type in the words of the language, for messages that must not show the value."""
    names: dict[type, str] = {
        bool: "a boolean", int: "a whole number", float: "a float", Decimal: "a decimal", str: "text",
        datetime: "a datetime", date: "a date", time: "a time", bytes: "bytes", UUID: "a UUID", list: "a list",
        dict: "a mapping", type(None): "null",
    }  # fmt: skip
    return next((word for kind, word in names.items() if isinstance(value, kind)), type(value).__name__)


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
