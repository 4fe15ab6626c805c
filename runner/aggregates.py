"""Aggregates become one statement: groups and results in a subquery, `having` and the order around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from runner.dialects.types import column_type
from runner.filters import Columns, Database, condition, order
from schemas.aggregates import AVERAGE_DIGITS, Aggregate
from schemas.filters import Filter, Order
from schemas.types import ValueType


def aggregate_statement(
    table: sa.Table,
    where: ColumnElement[bool],
    groups: Sequence[str],
    aggregates: Sequence[Aggregate],
    types: Mapping[str, ValueType],
    database: Database,
) -> sa.Subquery:
    """One row a group (exactly one without groups), each column in the type its result has."""
    columns: list[ColumnElement[Any]] = [sa.type_coerce(table.c[g], column_type(types[g])).label(g) for g in groups]
    for each in aggregates:
        source = types[each.field] if each.field else None
        expression = _result(each, source, dict(table.c), database)
        columns.append(sa.type_coerce(expression, column_type(each.type)).label(each.name))
    # with no column of the table in it, `select_from` is what keeps count(*) from counting one row of nothing
    statement = sa.select(*columns).select_from(table).where(where)
    return statement.group_by(*(table.c[g] for g in groups)).subquery("results")


def results(
    inner: sa.Subquery,
    types: Mapping[str, ValueType],
    having: Filter | None,
    orders: Sequence[Order],
    limit: int | None,
    database: Database,
) -> sa.Select[Any]:
    """The result rows that `having` lets through, in order; rows that tie follow the remaining columns."""  # fmt: skip
    typed = {name: sa.type_coerce(inner.c[name], column_type(kind)) for name, kind in types.items()}
    statement = sa.select(*(typed[name].label(name) for name in types))
    if having is not None:
        statement = statement.where(condition(having, typed, types, database))
    statement = statement.order_by(*order(orders, typed))
    return statement if limit is None else statement.limit(limit)


def _result(each: Aggregate, source: ValueType | None, columns: Columns, database: Database) -> ColumnElement[Any]:
    if each.field is None or source is None:
        return sa.func.count()
    column = columns[each.field]
    number = sa.type_coerce(column, sa.Double() if source.kind == "float" else sa.BigInteger())
    match each.operator:
        case "$count":
            return sa.func.count(column)
        case "$min":
            return sa.func.min(column)
        case "$max":
            return sa.func.max(column)
        case "$sum" if database == "postgresql" and source.kind == "integer":
            # sum(bigint) is numeric there; what does not fit 64 bits is an error on both databases
            return sa.cast(sa.func.coalesce(sa.func.sum(number), 0), sa.BigInteger())
        case "$sum":
            plain = sa.type_coerce(column, sa.Numeric()) if database == "postgresql" else number
            return sa.func.coalesce(sa.func.sum(number if source.kind == "float" else plain), 0)
        case "$avg" if source.kind == "float":
            return sa.func.avg(number)
        case _:
            return _average(column, source, database)


def _average(column: ColumnElement[Any], source: ValueType, database: Database) -> ColumnElement[Any]:
    """The exact mean, rounded half up once: sums and counts are whole numbers of units until then."""
    scale = source.scale or 0
    count = sa.func.count(column)
    if database == "sqlite":
        units = sa.func.sum(sa.type_coerce(column, sa.BigInteger()))
        return sa.func.dfrun_average(units, count, scale, AVERAGE_DIGITS)
    total = sa.func.sum(sa.type_coerce(column, sa.Numeric()))
    shift: ColumnElement[Any] = sa.literal_column(f"{10 ** (scale + AVERAGE_DIGITS)}::numeric")
    twice = sa.func.nullif(2 * count, 0)
    mean = sa.func.div(sa.func.abs(total) * shift * 2 + count, twice)
    unit: ColumnElement[Any] = sa.literal_column(f"0.{'0' * (scale + AVERAGE_DIGITS - 1)}1::numeric")
    return sa.func.sign(total) * mean * unit
