"""Cells of text files: text into typed values and back. One function a column, chosen once a file.

A reader takes the text of a cell and gives its value, or raises `ValueProblem`. Messages never hold the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

from schemas.base import Scalar
from schemas.literals import describe
from schemas.parsing import parse_value
from schemas.types import ValueProblem, ValueType

Reader = Callable[[str], object]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_TRUE, _FALSE = {"true", "t", "yes", "1"}, {"false", "f", "no", "0"}
_DIRECTIVES = {"%Y": r"(?P<Y>\d{4})", "%m": r"(?P<m>\d{1,2})", "%d": r"(?P<d>\d{1,2})", "%H": r"(?P<H>\d{1,2})",
               "%M": r"(?P<M>\d{1,2})", "%S": r"(?P<S>\d{1,2})", "%f": r"(?P<f>\d{1,6})"}  # fmt: skip


def cell_reader(
    kind: ValueType, *, decimal: str = ".", date_formats: Sequence[str] = (), null: str = "", guarded: bool = True
) -> Reader:
    """What reads the cells of one column.

    decimal: the mark before the fraction. date_formats: tried in order for dates and datetimes; ISO 8601 without them.
    null: the text that means null. guarded: a `'` that stands before a formula's first character is taken off.
    """
    read = _value_reader(kind, decimal, date_formats)
    is_text = kind.kind in ("string", "text", "enum")

    def cell(text: str) -> object:
        if text == null or not text:
            if kind.nullable:
                return None
            raise ValueProblem("is empty")
        if guarded and text[0] == "'" and _GUARDED.match(text):
            text = text[1:]
        return read(text if is_text else text.strip())

    return cell


def _value_reader(kind: ValueType, decimal: str, date_formats: Sequence[str]) -> Reader:
    match kind.kind:
        case "string" | "text":
            return _text_reader(kind)
        case "integer":
            return _integer
        case "decimal":
            return _decimal_reader(kind, decimal)
        case "float":
            return lambda text: parse_value(kind, Scalar(text.replace(decimal, ".") if decimal != "." else text))
        case "boolean":
            return _boolean
        case "date" | "datetime" if date_formats:
            return _dated_reader(kind, [_date_reader(each) for each in date_formats])
        case "json" | "list":
            return _tree_reader(kind)
        case _:
            return lambda text: _parsed(kind, text)


def _parsed(kind: ValueType, text: str) -> object:
    try:
        return parse_value(kind, Scalar(text))
    except ValueProblem as problem:
        # the words for literals quote the text; a cell's text stays out of messages
        raise ValueProblem(problem.what.partition(", got ")[0]) from None


def _text_reader(kind: ValueType) -> Reader:
    most = kind.max_length

    def read(text: str) -> object:
        if most is not None and len(text) > most:
            raise ValueProblem(f"text of {len(text)} characters, at most {most} are allowed")
        if "\x00" in text:
            raise ValueProblem("text with a NUL character cannot be stored")
        return text

    return read


def _integer(text: str) -> object:
    digits = text[1:] if text[0] in "+-" else text
    if len(digits) < 19 and digits.isdecimal() and digits.isascii():
        return int(text)
    return _parsed(ValueType("integer"), text)


def _decimal_reader(kind: ValueType, mark: str) -> Reader:
    scale, whole = kind.scale or 0, (kind.precision or 1000) - (kind.scale or 0)
    plain = re.compile(
        rf"-?\d{{1,{max(1, whole)}}}(?:\.\d{{1,{scale}}})?" if scale else rf"-?\d{{1,{max(1, whole)}}}", re.A
    )

    def read(text: str) -> object:
        if mark != ".":
            if "." in text:
                raise ValueProblem(f"wants {describe(kind)} with {mark!r} before the fraction")
            text = text.replace(mark, ".")
        return Decimal(text) if plain.fullmatch(text) and whole > 0 else _parsed(kind, text)

    return read


def _boolean(text: str) -> object:
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueProblem("wants true or false")


def _date_reader(pattern: str) -> Callable[[str], datetime | None]:
    """Reads one format; by a regular expression where it holds numbers only, which is ten times as fast."""
    parts = re.split(r"(%.)", pattern)
    if all(part in _DIRECTIVES or not part.startswith("%") for part in parts) and {"%Y", "%m", "%d"} <= set(parts):
        form = re.compile("".join(_DIRECTIVES.get(part) or re.escape(part) for part in parts), re.A)

        def quick(text: str) -> datetime | None:
            found = form.fullmatch(text)
            if found is None:
                return None
            got = found.groupdict()
            fraction = got.get("f")
            try:
                return datetime(
                    int(got["Y"]), int(got["m"]), int(got["d"]), int(got.get("H") or 0), int(got.get("M") or 0),
                    int(got.get("S") or 0), int(fraction.ljust(6, "0")) if fraction else 0, UTC,
                )  # fmt: skip
            except ValueError:
                return None

        return quick

    def slow(text: str) -> datetime | None:
        try:
            value = datetime.strptime(text, pattern)
        except ValueError:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    return slow


def _dated_reader(kind: ValueType, forms: Sequence[Callable[[str], datetime | None]]) -> Reader:
    def read(text: str) -> object:
        for form in forms:
            value = form(text)
            if value is not None:
                return value.date() if kind.kind == "date" else value
        raise ValueProblem(f"wants a {kind.kind} in the given date_format")

    return read


def _tree_reader(kind: ValueType) -> Reader:
    from schemas.parsing import deliver

    def read(text: str) -> object:
        try:
            return deliver(kind, json.loads(text))
        except json.JSONDecodeError:
            raise ValueProblem("wants JSON") from None

    return read


# --- and back -------------------------------------------------------------------------------------------------


def cell_text(value: object, *, decimal: str = ".", null: str = "", raw: bool = False) -> str:
    """The cell of a value. Unless `raw`, text that a spreadsheet would run as a formula gets a `'` in front."""
    if value is None:
        return null
    if isinstance(value, str):
        return value if raw else guard(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text if decimal == "." else text.replace(".", decimal)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return repr(value) if decimal == "." else repr(value).replace(".", decimal)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=json_value)
    return str(value)


def guard(text: str) -> str:
    """The text, with a `'` in front where a spreadsheet would see a formula; reading takes it off again."""
    return "'" + text if text.startswith(FORMULA_STARTS) or (text[:1] == "'" and _GUARDED.match(text)) else text


def json_value(value: object) -> object:
    """A value as JSON has it: decimals, dates and identifiers as text, so that nothing is rounded."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, UUID):
        return str(value)
    return cell_text(value, raw=True)
