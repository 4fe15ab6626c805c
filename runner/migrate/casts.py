"""How PostgreSQL turns a column of one type into another: the USING expression, and the rows that would be refused or
would lose something."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runner.migrate.postgresql import literal

_WORDS = {
    "character varying": "text", "varchar": "text", "text": "text", "character": "char", "bigint": "integer",
    "integer": "integer", "smallint": "integer", "double precision": "float", "real": "float", "numeric": "decimal",
    "boolean": "boolean", "date": "date", "time without time zone": "time", "time with time zone": "time",
    "timestamp with time zone": "datetime", "timestamp without time zone": "naive", "uuid": "uuid", "jsonb": "json",
    "json": "rawjson", "bytea": "bytes",
}  # fmt: skip
_RANGES = {"smallint": 32767, "integer": 2147483647, "bigint": 9223372036854775807}


@dataclass(frozen=True, slots=True)
class Form:
    """A type as `format_type` spells it, taken apart. `sizes` are its numbers in brackets."""

    text: str
    family: str
    name: str
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """`rule` of the catalogue, `using` ("" where the server needs none), and the condition of rows that do not fit
    (None where all do). `{c}` in both stands for the column."""

    rule: str
    using: str = ""
    misfits: str | None = None


def form(text: str) -> Form:
    """The type taken apart.

    >>> form("character varying(20)").sizes, form("timestamp(3) with time zone").family
    ((20,), 'datetime')
    """
    sized = re.search(r"\(([\d, ]+)\)", text)
    name = re.sub(r"\s*\([\d, ]+\)", "", text)
    sizes = tuple(int(part) for part in sized[1].split(",")) if sized else ()
    return Form(text, _WORDS.get(name, "other"), name, sizes)


def cast(before: str, after: str) -> Cast:
    """How to get from one type to the other.

    A pair without any meaning (a date as a boolean) has the condition "is not null": it works while no row has a value.
    """
    old, new = form(before), form(after)
    if new.family in ("text", "char"):
        return _to_text(old, new)
    if old.family in ("text", "char"):
        return _from_text(new)
    if old.family == new.family == "integer":
        if _RANGES[old.name] <= _RANGES[new.name]:
            return Cast("change_type")
        return Cast("narrow_type", "", f"{{c}} NOT BETWEEN -{_RANGES[new.name]} AND {_RANGES[new.name]}")
    pair = (old.family, new.family)
    if pair == ("decimal", "decimal"):
        return _decimal(old, new)
    if pair == ("datetime", "naive") or pair == ("naive", "datetime"):
        return Cast("change_zone", "{c} AT TIME ZONE 'UTC'")
    if pair in (("json", "rawjson"), ("rawjson", "json")):
        return Cast("change_type", f"{{c}}::{after}")
    if old.family == "other" or new.family == "other":
        return Cast("change_type", f"{{c}}::text::{after}")
    if "json" in pair:
        return _json(old, new)
    found = _PAIRS.get(pair)
    if found is None:
        return Cast("change_type", f"NULL::{after}", "{c} IS NOT NULL")
    using, misfits = found
    return Cast("change_type", using.replace("{t}", after), misfits and _limited(misfits, old, new))


_ODD = "{c} IN ('NaN', 'Infinity', '-Infinity')"
_PAIRS: dict[tuple[str, str], tuple[str, str | None]] = {
    ("integer", "float"): ("{c}::{t}", "{c}::float8::numeric <> {c}::numeric"),
    ("integer", "decimal"): ("{c}::{t}", "{limits}"),
    ("integer", "boolean"): ("{c} <> 0", "{c} NOT IN (0, 1)"),
    ("float", "float"): ("{c}::{t}", None),
    ("float", "integer"): ("{c}::{t}", f"({_ODD} OR {{c}} <> trunc({{c}}) OR {{limits}})"),
    ("float", "decimal"): ("{c}::text::{t}", f"({_ODD} OR {{limits}})"),
    ("float", "boolean"): ("{c} <> 0", "{c} NOT IN (0, 1)"),
    ("decimal", "integer"): ("{c}::{t}", "({c} <> trunc({c}) OR {limits})"),
    ("decimal", "float"): ("{c}::{t}", "{c}::float8::text::numeric <> {c}"),
    ("decimal", "boolean"): ("{c} <> 0", "{c} NOT IN (0, 1)"),
    ("boolean", "integer"): ("{c}::int::{t}", None),
    ("boolean", "float"): ("{c}::int::{t}", None),
    ("boolean", "decimal"): ("{c}::int::{t}", "{limits}"),
    ("date", "datetime"): ("{c}::timestamp AT TIME ZONE 'UTC'", None),
    ("date", "naive"): ("{c}::{t}", None),
    ("naive", "date"): ("{c}::date", "{c}::time <> '00:00'"),
    ("datetime", "date"): ("({c} AT TIME ZONE 'UTC')::date", "({c} AT TIME ZONE 'UTC')::time <> '00:00'"),
    ("datetime", "datetime"): ("", None),
    ("naive", "naive"): ("", None),
    ("time", "time"): ("", None),
}


def _limited(condition: str, old: Form, new: Form) -> str | None:
    """The condition with the limits of the new type in it; None where there is nothing to ask."""
    number = {"boolean": "{c}::int::numeric", "integer": "{c}::numeric", "decimal": "{c}"}.get(
        old.family, f"CASE WHEN NOT {_ODD} THEN {{c}}::text::numeric END"
    )
    limits = "false"
    if new.family == "decimal" and new.sizes:
        limits = _beyond(number, new)
    elif new.family == "integer":
        limits = f"{number} NOT BETWEEN -{_RANGES[new.name]} AND {_RANGES[new.name]}"
    found = condition.replace("{limits}", limits)
    return None if found == "false" else found


def _beyond(number: str, new: Form) -> str:
    """Numbers with more digits, before or after the point, than the decimal has."""
    precision, scale = new.sizes[0], new.sizes[1] if len(new.sizes) > 1 else 0
    return f"(abs({number}) >= 1e{precision - scale}::numeric OR round({number}, {scale}) <> {number})"


def _json(old: Form, new: Form) -> Cast:
    if new.family == "json":
        return Cast("change_type", "to_jsonb(encode({c}, 'hex'))" if old.family == "bytes" else "to_jsonb({c})")
    if new.family == "bytes":
        return Cast("change_type", f"NULL::{new.text}", "{c} IS NOT NULL")
    inner = "({c} #>> '{}')"
    misfits = f"jsonb_typeof({{c}}) IN ('object', 'array') OR NOT pg_input_is_valid({inner}, {literal(new.text)})"
    if new.family == "decimal" and new.sizes:
        lossy = _beyond(f"{inner}::numeric", new)
        misfits += f" OR CASE WHEN pg_input_is_valid({inner}, 'numeric') THEN {lossy} END"
    # a null inside the document becomes none outside
    return Cast("change_type", f"{inner}::{new.text}", f"({misfits})")


def _decimal(old: Form, new: Form) -> Cast:
    if not new.sizes:
        return Cast("widen_type")
    precision, scale = new.sizes[0], new.sizes[1] if len(new.sizes) > 1 else 0
    if old.sizes:
        had, kept = old.sizes[0], old.sizes[1] if len(old.sizes) > 1 else 0
        if kept == scale and had <= precision:
            return Cast("widen_type")
        if scale >= kept and precision - scale >= had - kept:
            return Cast("change_type")
    # the server would round in silence
    return Cast("narrow_type", "", _beyond("{c}", new))


def _to_text(old: Form, new: Form) -> Cast:
    size = new.sizes[0] if new.sizes else None
    if old.family == "text" and new.family == "text":
        if size is None or (old.sizes and old.sizes[0] <= size):
            return Cast("widen_type")
        return Cast("narrow_type", "", f"char_length({{c}}) > {size}")
    using = {"bytes": "encode({c}, 'hex')", "datetime": "({c} AT TIME ZONE 'UTC')::text || '+00'"}.get(
        old.family, "{c}::text"
    )
    misfits = None if size is None else f"char_length({using}) > {size}"
    return Cast("change_type", f"({using})::{new.text}", misfits)


def _from_text(new: Form) -> Cast:
    if new.family == "bytes":
        text = "'\\x' || {c}"
        return Cast("change_type", f"({text})::bytea", f"NOT pg_input_is_valid({text}, 'bytea')")
    misfits = f"NOT pg_input_is_valid({{c}}::text, {literal(new.text)})"
    if new.family == "decimal" and new.sizes:
        lossy = f"CASE WHEN pg_input_is_valid({{c}}::text, 'numeric') THEN {_beyond('{c}::numeric', new)} END"
        misfits = f"({misfits} OR {lossy})"
    return Cast("change_type", f"{{c}}::text::{new.text}", misfits)
