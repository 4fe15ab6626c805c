"""The types of values: what a field, a parameter or a port holds, which of them flows into which, and what stands for
a value that is still to come. How text becomes a value says `parsing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Literal
from uuid import UUID

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


def instant(value: datetime) -> datetime:
    """The same moment in UTC; no offset means UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def type_word(value: object) -> str:
    """The name of a value's type in the words of the language, for messages that must not show the value."""
    names: dict[type, str] = {
        bool: "a boolean", int: "a whole number", float: "a float", Decimal: "a decimal", str: "text",
        datetime: "a datetime", date: "a date", time: "a time", bytes: "bytes", UUID: "a UUID", list: "a list",
        dict: "a mapping", type(None): "null",
    }  # fmt: skip
    return next((word for kind, word in names.items() if isinstance(value, kind)), type(value).__name__)
