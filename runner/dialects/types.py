"""How each type of value is kept: one SQLAlchemy type a kind, the same values in and out on both databases.

SQLite keeps decimals as whole numbers of the smallest unit (19.99 at scale 2 is 1999), which is exact, sums exactly and
sorts by an index; instants as UTC text of fixed width, which sorts as time does.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from schemas.jsonvalues import json_value
from schemas.parsing import deliver
from schemas.types import ValueType, instant

SQLITE_PRECISION = 18
"""A decimal of 18 digits is the largest that 64 bits hold whatever its digits."""
_DATETIME = "%Y-%m-%d %H:%M:%S.%f"


def column_type(kind: ValueType) -> TypeEngine[Any]:
    """The SQLAlchemy type that keeps values of `kind`."""
    return Stored(kind)


class Stored(TypeDecorator[Any]):
    """Values of one `ValueType`, stored as the database at hand keeps them best."""

    impl = sa.String
    cache_ok = True

    def __init__(self, value_type: ValueType) -> None:
        super().__init__()
        self.value_type = value_type

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The database's own type."""
        kind = self.value_type
        if dialect.name == "sqlite":
            return dialect.type_descriptor(_SQLITE.get(kind.kind, sa.TEXT)())
        match kind.kind:
            case "string" | "enum":
                # an enum's check bounds it: a new value is no change of type
                return dialect.type_descriptor(sa.VARCHAR(kind.max_length, collation="C"))
            case "text":
                return dialect.type_descriptor(sa.TEXT(collation="C"))
            case "decimal":
                return dialect.type_descriptor(sa.NUMERIC(kind.precision, kind.scale))
            case _:
                return dialect.type_descriptor(_POSTGRESQL[kind.kind])

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """A value on its way in."""
        if dialect.name == "sqlite":
            return to_sqlite(self.value_type, value)
        return json_value(value) if self.value_type.kind == "list" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """A value on its way out."""
        if dialect.name == "sqlite":
            return from_sqlite(self.value_type, value)
        if self.value_type.kind == "list":
            return typed_list(self.value_type, value)
        if self.value_type.kind == "datetime" and value is not None and value.tzinfo is None:
            return value.replace(
                tzinfo=UTC
            )  # asyncpg keeps the first and the last moment as infinities, without a zone
        return value

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """Operands of this column are kept as the column is."""
        return self


_SQLITE: dict[str, type[TypeEngine[Any]]] = {
    "integer": sa.INTEGER, "decimal": sa.INTEGER, "boolean": sa.INTEGER, "float": sa.REAL, "bytes": sa.BLOB,
}  # fmt: skip
_POSTGRESQL: dict[str, TypeEngine[Any]] = {
    "integer": sa.BIGINT(), "float": sa.DOUBLE_PRECISION(), "boolean": sa.BOOLEAN(), "date": sa.DATE(),
    "time": sa.TIME(), "datetime": sa.TIMESTAMP(timezone=True), "uuid": sa.UUID(),
    "json": postgresql.JSONB(none_as_null=True), "list": postgresql.JSONB(none_as_null=True),
    "bytes": postgresql.BYTEA(),
}  # fmt: skip


def to_sqlite(kind: ValueType, value: Any) -> Any:
    """What SQLite keeps for a value; None stays None."""
    if value is None:
        return None
    match kind.kind:
        case "decimal":
            return int(Decimal(value).scaleb(kind.scale or 0))
        case "boolean":
            return int(value)
        case "datetime":
            return instant(value).replace(tzinfo=None).isoformat(" ", "microseconds")
        case "date":
            return value.isoformat()
        case "time":
            return value.isoformat("microseconds")
        case "uuid":
            return str(value)
        case "json" | "list":
            return json.dumps(json_value(value), ensure_ascii=False, separators=(",", ":"))
        case _:
            return value


def from_sqlite(kind: ValueType, value: Any) -> Any:
    """The value that SQLite kept; None stays None."""
    if value is None:
        return None
    match kind.kind:
        case "decimal":
            return Decimal(value).scaleb(-(kind.scale or 0))
        case "boolean":
            return bool(value)
        case "datetime":
            return datetime.strptime(value, _DATETIME).replace(tzinfo=UTC)
        case "date":
            return date.fromisoformat(value)
        case "time":
            return time.fromisoformat(value)
        case "uuid":
            return UUID(value)
        case "json":
            return json.loads(value)
        case "list":
            return typed_list(kind, json.loads(value))
        case _:
            return value


def typed_list(kind: ValueType, value: Any) -> Any:
    """A list as its type has it: JSON keeps dates, decimals and UUIDs as texts and numbers."""
    is_plain = kind.items is None or kind.items.kind in _PLAIN_ITEMS
    return value if value is None or is_plain else deliver(kind, value)


_PLAIN_ITEMS = ("string", "text", "enum", "integer", "float", "boolean", "json", "any")
