"""Orders in SQL, and the condition of what comes after a row in an order. Null is lowest on both databases; the values
of a JSON path come in the order null, numbers, texts, booleans, and last arrays and objects, which tie.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import ColumnElement

from runner.dialects.types import column_type
from runner.sql.filters import Columns, Database
from runner.sql.jsonsql import json_at
from schemas.filters import Order
from schemas.jsonvalues import is_number
from schemas.paths import JSON_KINDS, find_path
from schemas.types import ValueType

_PLAIN_STEP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANKS = {"number": 1, "string": 2, "boolean": 3, "array": 4, "object": 4}
_LITE_RANKS = {"integer": 1, "real": 1, "text": 2, "true": 3, "false": 3, "array": 4, "object": 4}


@dataclass(frozen=True, slots=True)
class _Term:
    """One expression to sort by, and the type of its values."""

    value: ColumnElement[Any]
    type: Any
    is_descending: bool
    is_nullable: bool


def order(
    orders: Sequence[Order], columns: Columns, types: Mapping[str, ValueType], database: Database
) -> list[ColumnElement[Any]]:
    """What ORDER BY takes."""
    return [
        _sorted(term, database) for each in orders for term in _terms(each, columns, types, database)
    ]  # fmt: skip


def after(
    orders: Sequence[Order],
    values: Sequence[object],
    columns: Columns,
    types: Mapping[str, ValueType],
    database: Database,
) -> ColumnElement[bool]:
    """The rows that come after the row with these values (one for each order)."""
    pairs: list[tuple[_Term, object]] = []
    for each, value in zip(orders, values, strict=True):
        terms = _terms(each, columns, types, database)
        pairs += zip(terms, _keys(value) if len(terms) > 1 else [value], strict=True)
    beyond: ColumnElement[bool] = sa.false()
    for term, value in reversed(pairs):
        past, same = _past(term, value), _same(term, value)
        beyond = sa.or_(past, sa.and_(same, beyond))
    first, value = pairs[0]
    # said once more of the first alone, so that an index on it is enough to start there
    return sa.and_(sa.or_(_past(first, value), _same(first, value)), beyond)


def _sorted(term: _Term, database: Database) -> ColumnElement[Any]:
    if not term.is_nullable:
        return term.value.desc() if term.is_descending else term.value.asc()
    return term.value.desc().nulls_last() if term.is_descending else term.value.asc().nulls_first()


def _past(term: _Term, value: object) -> ColumnElement[bool]:
    if value is None:
        return sa.false() if term.is_descending else term.value.is_not(None)
    bound = _bound(term, value)
    if not term.is_descending:
        return term.value > bound
    lower: ColumnElement[bool] = term.value < bound
    return sa.or_(lower, term.value.is_(None)) if term.is_nullable else lower


def _same(term: _Term, value: object) -> ColumnElement[bool]:
    if value is None:
        return term.value.is_(None)
    same: ColumnElement[bool] = term.value == _bound(term, value)
    return same


def _bound(term: _Term, value: object) -> ColumnElement[Any]:
    is_numeric = isinstance(term.type, sa.Numeric)  # of a JSON path on PostgreSQL, where numbers are compared exactly
    return sa.literal(Decimal(repr(value)) if is_numeric else value, term.type)


def _terms(each: Order, columns: Columns, types: Mapping[str, ValueType], database: Database) -> list[_Term]:
    path, kind = find_path(each.field, types)
    column = columns[path.column]
    if kind.kind not in JSON_KINDS:
        return [_Term(column, column_type(kind), each.is_descending, kind.nullable)]
    parts = _jsonb_parts if database == "postgresql" else _lite_parts
    return [_Term(value, type_, each.is_descending, True) for value, type_ in parts(column, path.steps)]


def _jsonb_parts(column: ColumnElement[Any], steps: Sequence[str]) -> list[tuple[ColumnElement[Any], Any]]:
    """The rank of the value's kind, then the value as each kind that has an order."""
    value = json_at(column, steps, "postgresql")
    kind = sa.func.jsonb_typeof(value)
    text = sa.type_coerce(value.op("#>>")(sa.literal_column("'{}'")), sa.Text())
    rank = sa.case({name: _constant(rank) for name, rank in _RANKS.items()}, value=kind, else_=_constant(0))
    number = sa.case((kind == sa.literal_column("'number'"), sa.cast(value, sa.Numeric())))
    string = sa.case((kind == sa.literal_column("'string'"), text)).collate("C")
    switch = sa.case((value == sa.literal(True, JSONB()), _constant(1)), else_=_constant(0))
    return [(rank, sa.Integer()), (number, sa.Numeric()), (string, sa.Text()), (switch, sa.Integer())]


def _lite_parts(column: ColumnElement[Any], steps: Sequence[str]) -> list[tuple[ColumnElement[Any], Any]]:
    document: ColumnElement[Any] = sa.type_coerce(column, sa.Text())
    way = "$"
    if all(map(_PLAIN_STEP.fullmatch, steps)):
        way = ".".join(["$", *steps])
    else:
        document = sa.func.dfrun_at(document, json.dumps(list(steps)))
    kind, value = sa.func.json_type(document, way), sa.func.json_extract(document, way)
    rank = sa.case({name: _constant(rank) for name, rank in _LITE_RANKS.items()}, value=kind, else_=_constant(0))
    number = sa.case((kind.in_([sa.literal_column("'integer'"), sa.literal_column("'real'")]), value))
    string = sa.case((kind == sa.literal_column("'text'"), value))
    switch = sa.case((kind == sa.literal_column("'true'"), _constant(1)), else_=_constant(0))
    return [(rank, sa.Integer()), (number, None), (string, sa.Text()), (switch, sa.Integer())]


def _constant(number: int) -> ColumnElement[int]:
    return sa.literal_column(str(number), sa.Integer())


def _keys(value: object) -> list[object]:
    """The parts of a JSON value in an order, as the expressions have them."""
    if isinstance(value, bool):
        return [3, None, None, int(value)]
    if is_number(value):
        return [1, value, None, 0]
    if isinstance(value, str):
        return [2, None, value, 0]
    return [0 if value is None else 4, None, None, 0]
