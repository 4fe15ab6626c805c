"""Aggregates become one statement: groups and results in a subquery, `having` and the order around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from runner.dialects.types import column_type
from runner.sql.filters import Columns, Database, condition
from runner.sql.jsonsql import json_at
from runner.sql.orders import order
from schemas.aggregates import AVERAGE_DIGITS, Aggregate
from schemas.filters import Filter, Order
from schemas.paths import JSON_KINDS, find_path
from schemas.types import ValueType


def aggregate_statement(
    table: sa.Table,
    where: Sequence[ColumnElement[bool]],
    groups: Sequence[str],
    aggregates: Sequence[Aggregate],
    types: Mapping[str, ValueType],
    database: Database,
    *,
    is_compared: bool = False,
) -> sa.Subquery:
    """One row a group (exactly one without groups), each column in the type its result has.

    is_compared: the results are asked about or sorted, so SQLite must have numbers, which end at 64 bits.
    """
    grouped = {name: _place(name, dict(table.c), types, database) for name in groups}
    columns = [sa.type_coerce(column, column_type(kind)).label(name) for name, (column, kind) in grouped.items()]
    for each in aggregates:
        expression = sa.func.count() if each.field is None else _result(
            each, *_place(each.field, dict(table.c), types, database), database, is_compared
        )  # fmt: skip
        columns.append(sa.type_coerce(expression, column_type(each.type)).label(each.name))
    # with no column of the table in it, `select_from` is what keeps count(*) from counting one row of nothing
    statement = sa.select(*columns).select_from(table).where(*where)
    # by number: a path said twice would be bound twice, and PostgreSQL would take the two for different expressions
    numbers: list[ColumnElement[Any]] = [sa.literal_column(str(number)) for number in range(1, len(grouped) + 1)]
    return statement.group_by(*numbers).subquery("results")


def _place(
    name: str, columns: Columns, types: Mapping[str, ValueType], database: Database
) -> tuple[ColumnElement[Any], ValueType]:
    """A column, or what stands at the end of a JSON path, and its type. JSON null and nothing are SQL's null."""
    path, kind = find_path(name, types)
    column = columns[path.column]
    return (json_at(column, path.steps, database) if kind.kind in JSON_KINDS else column), kind


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
    statement = statement.order_by(*order(orders, typed, types, database))
    return statement if limit is None else statement.limit(limit)


def _result(
    each: Aggregate, column: ColumnElement[Any], source: ValueType, database: Database, is_compared: bool
) -> ColumnElement[Any]:
    number: ColumnElement[Any] = sa.type_coerce(column, sa.Double())
    plain = sa.type_coerce(column, sa.Numeric())
    match each.operator:
        case "$count":
            return sa.func.count(column)
        case "$min":
            return sa.func.min(column)
        case "$max":
            return sa.func.max(column)
        case "$sum" if source.kind == "float":
            return sa.func.coalesce(sa.func.sum(number), sa.literal_column("0.0"))
        case "$sum" if database == "sqlite":
            return sa.func.dfrun_sum(*_halves(column), int(is_compared or source.kind == "integer"))
        case "$sum" if source.kind == "integer":
            # sum(bigint) is numeric; what does not fit 64 bits is an error on both databases
            return sa.cast(sa.func.coalesce(sa.func.sum(plain), 0), sa.BigInteger())
        case "$sum":
            none: ColumnElement[Any] = sa.literal_column("0." + "0" * source.scale if source.scale else "0")
            return sa.func.coalesce(sa.func.sum(plain), none)
        case "$avg" if source.kind == "float":
            return sa.func.avg(number)
        case _ if database == "sqlite":
            return sa.func.dfrun_average(*_halves(column), sa.func.count(column), AVERAGE_DIGITS, int(is_compared))
        case _:
            return _average(column, source)


def _halves(column: ColumnElement[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The sums of the upper and of the lower 32 bits: SQLite's own sum stops at 64 bits, even on the way."""
    number = sa.type_coerce(column, sa.BigInteger())
    upper, lower = number.op(">>")(sa.literal_column("32")), number.op("&")(sa.literal_column("4294967295"))
    return sa.func.sum(upper), sa.func.sum(lower)


def _average(column: ColumnElement[Any], source: ValueType) -> ColumnElement[Any]:
    """The exact mean, rounded half up once: sums and counts are whole numbers of units until then."""
    scale = source.scale or 0
    count = sa.func.count(column)
    total = sa.func.sum(sa.type_coerce(column, sa.Numeric()))
    shift: ColumnElement[Any] = sa.literal_column(f"{10 ** (scale + AVERAGE_DIGITS)}::numeric")
    twice = sa.func.nullif(2 * count, 0)
    mean = sa.func.div(sa.func.abs(total) * shift * 2 + count, twice)
    unit: ColumnElement[Any] = sa.literal_column(f"0.{'0' * (scale + AVERAGE_DIGITS - 1)}1::numeric")
    return sa.func.sign(total) * mean * unit
