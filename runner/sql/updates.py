"""An update tree becomes the SET of an UPDATE, with the same results on both databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from runner.dialects.types import column_type
from runner.sql.filters import Columns, Database
from runner.sql.jsonchange import changed_json
from schemas.types import ValueType
from schemas.updates import Assign, FieldOf, RowOf


def changes(
    assigns: Sequence[Assign],
    columns: Columns,
    types: Mapping[str, ValueType],
    database: Database,
    row_columns: Columns | None = None,
) -> dict[str, ColumnElement[Any]]:
    """What each field becomes. Every operand must be a value by now. row_columns: what `$row` reads."""
    inside = parts_by_field(assigns)
    whole = {
        a.field: _change(a, columns, types[a.field], database, row_columns or {}) for a in assigns if not a.is_inside
    }
    return whole | {name: changed_json(parts, columns[name], database) for name, parts in inside.items()}


def parts_by_field(assigns: Sequence[Assign]) -> dict[str, list[Assign]]:
    """The changes inside JSON values, by their column."""
    inside: dict[str, list[Assign]] = {}
    for assign in assigns:
        if assign.is_inside:
            inside.setdefault(assign.field, []).append(assign)
    return inside


def _change(
    assign: Assign, columns: Columns, kind: ValueType, database: Database, row_columns: Columns
) -> ColumnElement[Any]:
    if assign.operator in ("$set", "$min", "$max"):
        value = _whole(assign.operands[0], kind, columns, row_columns, database)
        if assign.operator == "$set":
            return value
        column = columns[assign.field]
        is_better = value < column if assign.operator == "$min" else value > column
        return sa.case((sa.or_(column.is_(None), is_better), value), else_=column)
    left, right = assign.operands
    if kind.kind == "decimal" and database == "sqlite":
        sides = [part for side in (left, right) for part in _units(side, columns, row_columns)]
        return sa.func.dfrun_decimal(assign.operator, *sides, kind.scale or 0)
    a, b = (_number(side, kind, columns, row_columns) for side in (left, right))
    result = {"$add": a + b, "$subtract": a - b}[assign.operator] if assign.operator != "$multiply" else a * b
    if kind.kind == "decimal":
        return sa.func.round(result, kind.scale or 0)
    if database == "postgresql":
        return result
    # SQLite goes on with infinities, and with doubles where whole numbers are too large; PostgreSQL stops
    return sa.func.dfrun_finite(result) if kind.kind == "float" else _still_whole(result)


def _still_whole(result: ColumnElement[Any]) -> ColumnElement[Any]:
    is_double = sa.func.typeof(result) == sa.literal_column("'real'")
    return sa.case((is_double, sa.func.dfrun_overflow()), else_=result)


def _whole(
    operand: object, kind: ValueType, columns: Columns, row_columns: Columns, database: Database
) -> ColumnElement[Any]:
    """An operand that is taken as it is; in SQLite a number is moved to the scale of a decimal target."""
    if not isinstance(operand, (FieldOf, RowOf)):
        return sa.literal(operand, column_type(kind))
    if kind.kind == "decimal" and database == "sqlite":
        units = _units(operand, columns, row_columns)
        return sa.func.dfrun_decimal("$add", *units, "0", -1, kind.scale or 0)
    return (columns if isinstance(operand, FieldOf) else row_columns)[operand.name]


def _number(operand: object, kind: ValueType, columns: Columns, row_columns: Columns) -> ColumnElement[Any]:
    """An operand of arithmetic with no scale of its own, so that it is not rounded before its time."""
    plain: Any = {"integer": sa.BigInteger(), "float": sa.Double(), "decimal": sa.Numeric()}[kind.kind]
    if isinstance(operand, (FieldOf, RowOf)):
        return sa.type_coerce((columns if isinstance(operand, FieldOf) else row_columns)[operand.name], plain)
    return sa.literal(operand, plain)


def _units(operand: object, columns: Columns, row_columns: Columns) -> tuple[Any, Any]:
    """An operand for `decimals.change`: a column's units and their scale, or a decimal's text and -1."""
    if isinstance(operand, (FieldOf, RowOf)):
        column = (columns if isinstance(operand, FieldOf) else row_columns)[operand.name]
        scale = operand.type.scale or 0 if operand.type.kind == "decimal" else 0
        return sa.type_coerce(column, sa.BigInteger()), sa.literal(scale, sa.BigInteger())
    return sa.literal(format(operand, "f"), sa.Text()), sa.literal(-1, sa.BigInteger())
