"""A filter tree becomes a condition in SQL that is true or false on every row, never unknown.

A comparison with null is unknown to SQL, which WHERE, AND and OR treat as false; only a negation would show it, so a
negation asks whether its inside *is true*. What stands under no negation stays a plain comparison and uses an index.
"""

from __future__ import annotations

import json
import operator as operators
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import ColumnElement

from runner.dialects.types import column_type, to_sqlite
from schemas.filters import All, AnyOf, Compare, Filter, Not, Order
from schemas.patterns import Pattern
from schemas.types import INTEGER_MAX, INTEGER_MIN, ValueType

Database = Literal["postgresql", "sqlite"]
_COMPARISONS = {
    "$eq": operators.eq,
    "$gt": operators.gt,
    "$gte": operators.ge,
    "$lt": operators.lt,
    "$lte": operators.le,
}
Columns = Mapping[str, ColumnElement[Any]]


def condition(
    tree: Filter, columns: Columns, types: Mapping[str, ValueType], database: Database
) -> ColumnElement[bool]:
    """The condition that holds on the rows the filter means. Every operand must be a value by now."""
    match tree:
        case All(parts):
            return sa.and_(sa.true(), *(condition(part, columns, types, database) for part in parts))
        case AnyOf(parts):
            return sa.or_(sa.false(), *(condition(part, columns, types, database) for part in parts))
        case Not(inside):
            return sa.not_(condition(inside, columns, types, database).is_(sa.true()))
        case Compare():
            return _compare(tree, columns[tree.field], types[tree.field], database)


def order(orders: Sequence[Order], columns: Columns) -> list[ColumnElement[Any]]:
    """What ORDER BY takes. Null is lowest on both databases."""
    return [
        columns[o.field].desc().nulls_last() if o.is_descending else columns[o.field].asc().nulls_first()
        for o in orders
    ]


def _compare(tree: Compare, column: ColumnElement[Any], kind: ValueType, database: Database) -> ColumnElement[bool]:
    operand = tree.operand
    match tree.operator:
        case "$exists":
            return column.is_not(None) if operand else column.is_(None)
        case "$like":
            return column.like(sa.literal(operand, sa.Text()), escape="\\")
        case "$regex" | "$ilike":
            return _matches(column, operand, database)
        case "$contains" | "$startswith" | "$endswith":
            return _holds(column, tree.operator, str(operand))
        case "$mod":
            assert isinstance(operand, tuple)
            # SQL's remainder has the sign of the dividend on both databases
            rest: ColumnElement[bool] = sa.type_coerce(column, sa.BigInteger()) % operand[0] == operand[1]
            return rest
        case "$in":
            assert isinstance(operand, (list, tuple))
            return _is_in(column, kind, operand, database)
        case "$eq" if operand is None:
            return column.is_(None)
    operator, value = _within_reach(tree.operator, operand, kind)
    if operator == "always":
        return column.is_not(None)
    if operator == "never":
        return sa.false()
    compared: ColumnElement[bool] = _COMPARISONS[operator](column, value)
    return compared


def _matches(column: ColumnElement[Any], pattern: object, database: Database) -> ColumnElement[bool]:
    assert isinstance(pattern, Pattern)
    spelled = sa.literal(pattern.spelled, sa.Text())
    if database == "postgresql":
        return column.op("~", is_comparison=True)(spelled)
    return sa.func.dfrun_matches(spelled, column) == sa.literal_column("1")


def _holds(column: ColumnElement[Any], operator: str, text: str) -> ColumnElement[bool]:
    """Literal text somewhere, at the start or at the end: LIKE with every wildcard made plain."""
    plain = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    before, after = operator != "$startswith", operator != "$endswith"
    return column.like(sa.literal(f"{'%' * before}{plain}{'%' * after}", sa.Text()), escape="\\")


def _within_reach(operator: str, value: Any, kind: ValueType) -> tuple[str, Any]:
    """The same comparison with an operand that the column can hold: wider ones are compared by value all the same."""
    if kind.kind == "integer" and not INTEGER_MIN <= value <= INTEGER_MAX:
        is_always = operator in (("$lt", "$lte") if value > 0 else ("$gt", "$gte"))
        return ("always" if is_always else "never"), None
    if kind.kind == "decimal":
        # both databases would round the operand to the column's scale, and 19.991 would find 19.99
        unit = Decimal(1).scaleb(-(kind.scale or 0))
        if abs(value) >= Decimal(10) ** (kind.precision or 0) * unit:
            is_always = operator in (("$lt", "$lte") if value > 0 else ("$gt", "$gte"))
            return ("always" if is_always else "never"), None
        if value % unit:
            if operator == "$eq":
                return "never", None
            up = operator in ("$gt", "$gte")
            return ("$gte" if up else "$lte"), value.quantize(unit, ROUND_CEILING if up else ROUND_FLOOR)
    return operator, value


def _is_in(
    column: ColumnElement[Any], kind: ValueType, values: Sequence[Any], database: Database
) -> ColumnElement[bool]:
    """Membership with the whole list as one bound value, so that no driver's limit of parameters is met."""
    given = [v for v in values if v is not None and _within_reach("$eq", v, kind)[0] == "$eq"]
    found: ColumnElement[bool] = sa.false()
    if given and database == "postgresql":
        found = column == sa.func.any(sa.literal(given, ARRAY(column_type(kind))))
    elif given:
        stored = json.dumps([to_sqlite(kind, v) for v in given], ensure_ascii=False)
        each = sa.func.json_each(sa.literal(stored, sa.Text())).table_valued("value")
        found = sa.type_coerce(column, sa.String()).in_(sa.select(each.c.value))
    return sa.or_(found, column.is_(None)) if None in values else found
