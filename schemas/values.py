"""How an author declares a type: `integer`, `date?`, `{type: decimal, precision: 12, scale: 2}`. Parameters and the
fields of models share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from schemas.base import Declaration, Switch, Whole
from schemas.types import DECIMAL_PRECISION, DECIMAL_SCALE, ValueType

TypeName = Literal[
    "string", "text", "integer", "float", "decimal", "boolean", "date", "time", "datetime", "uuid", "json", "bytes",
    "enum", "list",
]  # fmt: skip
_LONG_KEYS = {"max_length": ("string",), "precision": ("decimal",), "scale": ("decimal",), "values": ("enum",),
              "items": ("list",)}  # fmt: skip


def read_value_declaration(raw: object) -> object:
    """The long form of a short one: `integer?` is `{type: integer, nullable: true}`, and so is `{type: integer?}`."""
    if isinstance(raw, str):
        raw = {"type": raw}
    if isinstance(raw, Mapping) and isinstance(kind := raw.get("type"), str) and kind.endswith("?"):
        return {"nullable": True, **raw, "type": kind.removesuffix("?")}
    return raw


class EnumValue(Declaration):
    """A value of an enum that had another name before: `{value: paid, renamed_from: payed}`."""

    value: str
    """The value."""
    renamed_from: str
    """Its former name; rows that hold it are changed by the migration."""


class ValueDeclaration(Declaration):
    """A type, its limits, and what stands in when no value is given."""

    type: TypeName
    """The type; `?` after it allows null."""
    nullable: Switch = False
    """Whether null is a value; `TYPE?` is the short form."""
    description: str = ""
    """What it means, for readers and forms."""
    max_length: Annotated[Whole, Field(ge=1, le=10_485_760)] | None = None
    """Characters at most; of `string`."""
    precision: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    """Digits in all; of `decimal`."""
    scale: Annotated[Whole, Field(ge=0, le=1000)] | None = None
    """Digits after the point; of `decimal`."""
    values: Annotated[tuple[str | EnumValue, ...], Field(min_length=1)] | None = None
    """The values, in their order; of `enum`."""
    items: Items | None = None
    """The type of the items, or a mapping of names to types; of `list`."""
    default: object = None
    """The value when none is given."""
    check: object = None
    """A filter that every value passes, such as `{$gte: 0}`."""

    @model_validator(mode="after")
    def _keys_fit_the_type(self) -> ValueDeclaration:
        for key, types in _LONG_KEYS.items():
            if getattr(self, key) is not None and self.type not in types:
                raise ValueError(f"{key} belongs to {' or '.join(types)}, not to {self.type}")
        if self.type == "enum" and not self.values:
            raise ValueError("an enum wants its values, such as values: [pending, paid]")
        names = self.value_names
        if len(set(names)) < len(names):
            raise ValueError("a value of the enum stands twice")
        if (self.scale or 0) > (self.precision or DECIMAL_PRECISION):
            raise ValueError("scale is larger than precision")
        return self

    @property
    def value_names(self) -> tuple[str, ...]:
        """The values of an enum as rows hold them."""
        return tuple(v if isinstance(v, str) else v.value for v in self.values or ())

    def value_type(self) -> ValueType:
        """The declared type; decimals without precision and scale keep 18 digits, 6 of them after the point."""
        precision = scale = None
        if self.type == "decimal":
            precision = self.precision or DECIMAL_PRECISION
            scale = self.scale if self.scale is not None else 0 if self.precision else DECIMAL_SCALE
        items = self.items.value_type() if self.items else None
        return ValueType(self.type, self.nullable, self.max_length, precision, scale, self.value_names, items)


class RecordDeclaration(Declaration):
    """The items of a list that are mappings: `{sku: string, quantity: integer}`."""

    fields: dict[str, Annotated[ValueDeclaration, BeforeValidator(read_value_declaration)]]
    """The fields of each item by name."""

    def value_type(self) -> ValueType:
        """A record of the declared fields."""
        return ValueType("record", fields={name: field.value_type() for name, field in self.fields.items()})


def _read_items(raw: object) -> object:
    """One type for all items, or a mapping of field names to types for records."""
    if isinstance(raw, Mapping) and not _is_type(raw):
        return RecordDeclaration.model_validate({"fields": raw})
    return ValueDeclaration.model_validate(read_value_declaration(raw))


def _is_type(raw: Mapping[str, object]) -> bool:
    known = TypeName.__args__  # type: ignore[attr-defined]
    name = raw.get("type")
    return (
        isinstance(name, str) and re.sub(r"\?$", "", name) in known and set(raw) <= set(ValueDeclaration.model_fields)
    )


Items = Annotated[ValueDeclaration | RecordDeclaration, BeforeValidator(_read_items)]
ValueDeclaration.model_rebuild()
