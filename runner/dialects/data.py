"""Rows of data as a table in a statement, each of its columns bound as one value: no driver's limit of parameters is
met, and the statement's text stays the same whatever the number of rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import ColumnElement

from runner.dialects.types import column_type, to_sqlite
from runner.sql.filters import Database
from schemas.jsonvalues import json_value
from schemas.types import ValueType

_TREES = ("json", "list")


def data_table(
    database: Database, names: Sequence[str], kinds: Sequence[ValueType], rows: Sequence[Sequence[Any]]
) -> tuple[Any, dict[str, ColumnElement[Any]]]:
    """A FROM clause with `rows`, and its typed columns by name. A column `name` is called `d_name` inside it."""
    if database == "postgresql":
        return _unnested(names, kinds, rows)
    stored = [[_for_json(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows]
    each = sa.func.json_each(sa.literal(json.dumps(stored, ensure_ascii=False), sa.Text())).table_valued("value")
    columns = []
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        value: ColumnElement[Any] = sa.func.json_extract(each.c.value, sa.literal_column(f"'$[{index}]'"))
        value = sa.func.dfrun_bytes(value) if kind.kind == "bytes" else value
        columns.append(sa.type_coerce(value, column_type(kind)).label(f"d_{name}"))
    # the limit keeps the planner from going through the data once for every row of a table
    inner = sa.select(*columns).limit(-1).subquery("data")
    typed: dict[str, ColumnElement[Any]] = {
        n: sa.type_coerce(inner.c[f"d_{n}"], column_type(k)) for n, k in zip(names, kinds, strict=True)
    }
    return inner, typed


def _unnested(
    names: Sequence[str], kinds: Sequence[ValueType], rows: Sequence[Sequence[Any]]
) -> tuple[Any, dict[str, ColumnElement[Any]]]:
    arrays, columns = [], []
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        values = [row[index] for row in rows]
        if kind.kind in _TREES:
            values = [None if v is None else json.dumps(json_value(v), ensure_ascii=False) for v in values]
        plain = sa.Text() if kind.kind in _TREES else column_type(kind)
        arrays.append(sa.literal(values, ARRAY(plain)))
        columns.append(sa.column(f"d_{name}", plain))
    data = sa.func.unnest(*arrays).table_valued(*columns, name="data").render_derived()
    typed: dict[str, ColumnElement[Any]] = {}
    for name, kind in zip(names, kinds, strict=True):
        column = data.c[f"d_{name}"]
        typed[name] = sa.cast(column, JSONB()) if kind.kind in _TREES else column
    return data, typed


def _for_json(kind: ValueType, value: Any) -> Any:
    return value.hex() if kind.kind == "bytes" and value is not None else to_sqlite(kind, value)
