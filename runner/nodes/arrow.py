"""Batches of rows as Arrow tables and back, for the nodes that work with columnar libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from runner.data.cells import json_value
from schemas.types import ValueProblem, ValueType

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_type(kind: ValueType) -> pa.DataType:
    """The Arrow type that keeps values of `kind`: json, lists and identifiers as text."""
    import pyarrow as pa

    match kind.kind:
        case "integer":
            return pa.int64()
        case "float":
            return pa.float64()
        case "decimal":
            return pa.decimal128(kind.precision or 38, kind.scale if kind.scale is not None else 9)
        case "boolean":
            return pa.bool_()
        case "date":
            return pa.date32()
        case "time":
            return pa.time64("us")
        case "datetime":
            return pa.timestamp("us", tz="UTC")
        case "bytes":
            return pa.binary()
        case _:
            return pa.string()


def arrow_table(names: Sequence[str], kinds: Sequence[ValueType], rows: Sequence[Sequence[object]]) -> pa.Table:
    """The rows as one table. Raises `ValueProblem` under the column whose values are not of its type."""
    import pyarrow as pa

    columns = []
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        values: list[object] = [_plain(kind, row[index]) for row in rows]
        try:
            columns.append(pa.array(values, arrow_type(kind)))
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
            raise ValueProblem(f"a value is no {kind}", (name,)) from None
    return pa.Table.from_arrays(columns, names=list(names))


def _plain(kind: ValueType, value: object) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=json_value)
    if kind.kind in ("json", "list", "any", "record"):
        return json.dumps(value, ensure_ascii=False, default=json_value) if kind.kind == "json" else json_value(value)
    return value


def rows_of_table(table: pa.Table | pa.RecordBatch) -> list[tuple[object, ...]]:
    """The rows of a table, each value in its Python type."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True)) if table.num_columns else []


def known_columns(types: Mapping[str, ValueType] | None, columns: Sequence[str]) -> list[ValueType]:
    """The types of columns; text where nothing is known."""
    return [(types or {}).get(name, ValueType("text", True)) for name in columns]
