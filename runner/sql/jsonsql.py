"""JSON paths in SQL: what stands at the end of a path, as rows of JSON values that conditions are asked of.

A path that goes through arrays has many ends, so a condition on it is an EXISTS over them. PostgreSQL unfolds jsonb
step by step (its own lax paths unfold arrays twice); SQLite's `dfrun_leaves` walks the path and `json_each` gives the
rows. What is compared, and that it is compared in SQL, is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import ColumnElement

from schemas.jsonvalues import canonical, is_number
from schemas.paths import is_index

Database = Literal["postgresql", "sqlite"]
Truth = ColumnElement[bool]
Test = Callable[["JsonValue"], Truth]
_MOST_PATTERNS = 64
"""So many containments are asked for at most; longer lists unfold the path instead."""
_LARGEST_INDEX = 2**31 - 1
_TEXT_C = sa.Text(collation="C")


class JsonValue(Protocol):
    """One JSON value in SQL. `number` and `text` are null where the value is of another kind."""

    def equals(self, value: object) -> Truth:
        """Equal as JSON: whatever the order of keys, 5 is 5.0."""
        ...

    def is_in(self, values: Sequence[object]) -> Truth:
        """Equal to one of them."""
        ...

    def is_null(self) -> Truth:
        """JSON null, or nothing."""
        ...

    def is_object(self) -> Truth:
        """An object."""
        ...

    def is_array(self, length: int) -> Truth:
        """An array of this length."""
        ...

    @property
    def number(self) -> ColumnElement[Any]: ...

    @property
    def text(self) -> ColumnElement[Any]: ...

    def some_leaf(self, steps: Sequence[str], test: Test, *, expands: bool) -> Truth:
        """One end of the path that starts here passes the test; with `expands`, or one element of an array there."""
        ...

    def some_element(self, steps: Sequence[str], test: Test) -> Truth:
        """One element of an array at an end of the path passes the test."""
        ...

    def is_there(self, steps: Sequence[str]) -> Truth:
        """The path leads to a key or an element; without steps: there is a value."""
        ...

    def holds(self, steps: Sequence[str], values: Sequence[object]) -> Truth | None:
        """One end of the path, or one element of an array there, is one of these scalars, asked in a way that an index
        can answer; None where there is none."""
        ...


def json_column(column: ColumnElement[Any], database: Database) -> JsonValue:
    """The value that a column keeps."""
    if database == "postgresql":
        return _Jsonb(sa.type_coerce(column, JSONB()))
    return _LiteColumn(sa.type_coerce(column, sa.Text()))


# --- PostgreSQL -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Jsonb:
    """A jsonb expression; SQL's null is a missing value."""

    value: ColumnElement[Any]

    def _is(self, kind: str) -> Truth:
        return sa.func.jsonb_typeof(self.value) == sa.literal_column(f"'{kind}'")

    def equals(self, value: object) -> Truth:
        return self.is_null() if value is None else self.value == sa.literal(value, JSONB())

    def is_in(self, values: Sequence[object]) -> Truth:
        given = [json.dumps(v, ensure_ascii=False) for v in values if v is not None]
        found: Truth = sa.false()
        if given:
            found = self.value == sa.func.any(sa.cast(sa.literal(given, ARRAY(sa.Text())), ARRAY(JSONB())))
        return sa.or_(found, self.is_null()) if None in values else found

    def is_null(self) -> Truth:
        return sa.func.coalesce(self._is("null"), sa.true())

    def is_object(self) -> Truth:
        return self._is("object")

    def is_array(self, length: int) -> Truth:
        size = sa.func.jsonb_array_length(self.value)
        return sa.case((self._is("array"), size == sa.literal(length, sa.BigInteger())), else_=sa.false())

    @property
    def number(self) -> ColumnElement[Any]:
        return sa.case((self._is("number"), sa.cast(self.value, sa.Numeric())))

    @property
    def text(self) -> ColumnElement[Any]:
        plain = self.value.op("#>>")(sa.literal_column("'{}'"))
        return sa.case((self._is("string"), sa.type_coerce(plain, sa.Text()))).collate("C")

    def some_leaf(self, steps: Sequence[str], test: Test, *, expands: bool) -> Truth:
        rows, end = self._walk(steps)
        if expands:
            each = _unfolded(_with_elements(end))
            rows, end = each if rows is None else rows.join(each, sa.true()), each.c.value
        if rows is None:
            return test(_Jsonb(end))
        return sa.exists(sa.select(sa.literal_column("1")).select_from(rows).where(test(_Jsonb(end))))

    def some_element(self, steps: Sequence[str], test: Test) -> Truth:
        rows, end = self._walk(steps)
        each = _unfolded(sa.case((_Jsonb(end)._is("array"), end), else_=sa.literal_column("'[]'::jsonb")))
        rows = each if rows is None else rows.join(each, sa.true())
        return sa.exists(sa.select(sa.literal_column("1")).select_from(rows).where(test(_Jsonb(each.c.value))))

    def is_there(self, steps: Sequence[str]) -> Truth:
        if not steps:
            return self.value.is_not(None)
        rows, parent = self._walk(steps[:-1])
        last = steps[-1]
        if not is_index(last):
            each = _unfolded(_objects_in(parent))
            rows, parent = each if rows is None else rows.join(each, sa.true()), each.c.value
        found = sa.func.jsonb_exists(parent, sa.literal(last, sa.Text()))
        is_key = sa.case((_Jsonb(parent)._is("object"), found), else_=sa.false())
        if is_index(last):
            size = sa.func.jsonb_array_length(parent)
            is_in_it = size > sa.literal(min(int(last[:20]), _LARGEST_INDEX), sa.BigInteger())
            is_key = sa.case((_Jsonb(parent)._is("array"), is_in_it), else_=is_key)
        if rows is None:
            return is_key
        return sa.exists(sa.select(sa.literal_column("1")).select_from(rows).where(is_key))

    def holds(self, steps: Sequence[str], values: Sequence[object]) -> Truth | None:
        if any(map(is_index, steps)) or any(v is None or isinstance(v, (list, dict)) for v in values):
            return None
        shapes = [] if not steps else list(product((False, True), repeat=len(steps) + 1))
        if len(values) * max(1, len(shapes)) > _MOST_PATTERNS:
            return None
        # a lone scalar is contained in an array that has it, at the top only: deeper, both shapes are asked for
        patterns = [_nested(steps, value, shape) for value in values for shape in shapes] if steps else list(values)
        if not patterns:
            return sa.false()
        texts = [json.dumps(pattern, ensure_ascii=False) for pattern in patterns]
        if len(texts) == 1:
            return self.value.op("@>", is_comparison=True)(sa.literal(patterns[0], JSONB()))
        wanted: ColumnElement[Any] = sa.cast(sa.literal(texts, ARRAY(sa.Text())), ARRAY(JSONB()))
        return self.value.op("@>", is_comparison=True)(sa.func.any(wanted))

    def _walk(self, steps: Sequence[str]) -> tuple[Any, ColumnElement[Any]]:
        """The rows that the path unfolds into (None: one row), and the value at its end."""
        rows, here = None, self.value
        for step in steps:
            if is_index(step):
                here = child(here, step)
                continue
            each = _unfolded(_objects_in(here))
            rows = each if rows is None else rows.join(each, sa.true())
            here = sa.type_coerce(each.c.value.op("->")(sa.literal(step, sa.Text())), JSONB())
        return rows, here


def child(value: ColumnElement[Any], step: str) -> ColumnElement[Any]:
    """The member or the element that one step leads to; a key in an array is nothing."""
    by_key = value.op("->")(sa.literal(step, sa.Text()))
    if not is_index(step):
        return sa.type_coerce(by_key, JSONB())
    by_index: Any = sa.null()
    if int(step[:20]) <= _LARGEST_INDEX:
        by_index = value.op("->")(sa.literal(int(step), sa.Integer()))
    return sa.type_coerce(sa.case((_Jsonb(value)._is("array"), by_index), else_=by_key), JSONB())


def _unfolded(array: ColumnElement[Any]) -> Any:
    return sa.func.jsonb_array_elements(array).table_valued(sa.column("value", JSONB()))


def _with_elements(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """An array of the value and, where it is an array itself, of its elements."""
    alone = sa.func.jsonb_build_array(value)
    both = sa.type_coerce(value.op("||")(alone), JSONB())
    return sa.case((_Jsonb(value)._is("array"), both), else_=alone)


def _objects_in(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """An array of the objects that a step goes on from: those in an array (a null without any), or the value."""
    wanted: ColumnElement[Any] = sa.literal_column("""'strict $[*] ? (@.type() == "object")'::jsonpath""")
    objects = sa.func.jsonb_path_query_array(value, wanted)
    some = sa.func.coalesce(
        sa.func.nullif(objects, sa.literal_column("'[]'::jsonb")), sa.literal_column("'[null]'::jsonb")
    )
    return sa.case((_Jsonb(value)._is("array"), some), else_=sa.func.jsonb_build_array(value))


def _nested(steps: Sequence[str], value: object, shape: Sequence[bool]) -> object:
    """The value at the end of the path as objects in each other; `shape` says where an array stands around one."""
    here = [value] if shape[-1] else value
    for step, is_array in zip(reversed(steps), reversed(shape[:-1]), strict=True):
        here = [{step: here}] if is_array else {step: here}
    return here


# --- SQLite ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lite:
    """A row of `json_each`: the type, and the value in SQL's own (JSON text for arrays and objects)."""

    type: ColumnElement[Any]
    value: ColumnElement[Any]

    def _is(self, *kinds: str) -> Truth:
        return self.type.in_([sa.literal_column(f"'{kind}'") for kind in kinds])

    def equals(self, value: object) -> Truth:
        if value is None:
            return self.is_null()
        if isinstance(value, bool):
            return self._is("true" if value else "false")
        if isinstance(value, str):
            return sa.and_(self._is("text"), self.value == sa.literal(value, sa.Text()))
        if is_number(value):
            return sa.and_(self._is("integer", "real"), self.value == _lite_number(value))
        same: Truth = sa.func.dfrun_canonical(self.value) == sa.literal(canonical(value), sa.Text())
        return sa.case((self._is("array" if isinstance(value, list) else "object"), same), else_=sa.false())

    def is_in(self, values: Sequence[object]) -> Truth:
        texts = [v for v in values if isinstance(v, str)]
        numbers = [v for v in values if is_number(v)]
        containers = [canonical(v) for v in values if isinstance(v, (list, dict))]
        parts = [self.equals(v) for v in (None, True, False) if any(v is given for given in values)]
        if texts:
            parts.append(sa.and_(self._is("text"), self.value.in_(_listed(texts))))
        if numbers:
            parts.append(sa.and_(self._is("integer", "real"), self.value.in_(_listed(numbers))))
        if containers:
            same = sa.func.dfrun_canonical(self.value).in_(_listed(containers))
            parts.append(sa.case((self._is("array", "object"), same), else_=sa.false()))
        return sa.or_(sa.false(), *parts)

    def is_null(self) -> Truth:
        return sa.func.coalesce(self._is("null"), sa.true())

    def is_object(self) -> Truth:
        return self._is("object")

    def is_array(self, length: int) -> Truth:
        size = sa.func.json_array_length(self.value)
        return sa.case((self._is("array"), size == sa.literal(length, sa.BigInteger())), else_=sa.false())

    @property
    def number(self) -> ColumnElement[Any]:
        return sa.case((self._is("integer", "real"), self.value))

    @property
    def text(self) -> ColumnElement[Any]:
        return sa.case((self._is("text"), self.value))

    @property
    def _document(self) -> ColumnElement[Any]:
        """The value as JSON text, null for a scalar: no path leads into one."""
        return sa.case((self._is("array", "object"), self.value))

    def some_leaf(self, steps: Sequence[str], test: Test, *, expands: bool) -> Truth:
        if not steps and not expands:
            return test(self)
        return _LiteColumn(self._document).some_leaf(steps, test, expands=expands)

    def some_element(self, steps: Sequence[str], test: Test) -> Truth:
        return _LiteColumn(self._document).some_element(steps, test)

    def is_there(self, steps: Sequence[str]) -> Truth:
        return self.type.is_not(None) if not steps else _LiteColumn(self._document).is_there(steps)

    def holds(self, steps: Sequence[str], values: Sequence[object]) -> Truth | None:
        return None


@dataclass(frozen=True, slots=True)
class _LiteColumn:
    """JSON text as a column keeps it; SQL's null is a missing value."""

    document: ColumnElement[Any]

    def _rows(self, steps: Sequence[str], what: str) -> tuple[Any, _Lite]:
        leaves = sa.func.dfrun_leaves(
            self.document, sa.literal(json.dumps(list(steps)), sa.Text()), sa.literal_column(f"'{what}'")
        )
        each = sa.func.json_each(leaves).table_valued("type", "value")
        return each, _Lite(each.c.type, each.c.value)

    def _some(self, steps: Sequence[str], what: str, test: Test) -> Truth:
        rows, value = self._rows(steps, what)
        return sa.exists(sa.select(sa.literal_column("1")).select_from(rows).where(test(value)))

    def some_leaf(self, steps: Sequence[str], test: Test, *, expands: bool) -> Truth:
        return self._some(steps, "both" if expands else "leaves", test)

    def some_element(self, steps: Sequence[str], test: Test) -> Truth:
        return self._some(steps, "elements", test)

    def is_there(self, steps: Sequence[str]) -> Truth:
        if not steps:
            return self.document.is_not(None)
        there: Truth = sa.func.dfrun_is_there(self.document, sa.literal(json.dumps(list(steps)), sa.Text())) == 1
        return there

    def holds(self, steps: Sequence[str], values: Sequence[object]) -> Truth | None:
        return None

    def _alone(self) -> _Lite:
        return _Lite(sa.func.json_type(self.document), sa.func.json_extract(self.document, "$"))

    def equals(self, value: object) -> Truth:
        return self._alone().equals(value)

    def is_in(self, values: Sequence[object]) -> Truth:
        return self._alone().is_in(values)

    def is_null(self) -> Truth:
        return self._alone().is_null()

    def is_object(self) -> Truth:
        return self._alone().is_object()

    def is_array(self, length: int) -> Truth:
        return self._alone().is_array(length)

    @property
    def number(self) -> ColumnElement[Any]:
        return self._alone().number

    @property
    def text(self) -> ColumnElement[Any]:
        return self._alone().text


def _lite_number(value: object) -> ColumnElement[Any]:
    return sa.literal(value, sa.BigInteger() if isinstance(value, int) else sa.Double())


def _listed(values: Sequence[object]) -> sa.Select[Any]:
    """A list as one bound value, its items as rows."""
    each = sa.func.json_each(sa.literal(json.dumps(values, ensure_ascii=False), sa.Text())).table_valued("value")
    return sa.select(each.c.value)


def json_at(column: ColumnElement[Any], steps: Sequence[str], database: Database) -> ColumnElement[Any]:
    """The one value at the end of a path that goes through arrays by index only; null for JSON null and for nothing.

    Equal values are equal in SQL: SQLite gets their canonical text.
    """
    if database == "sqlite":
        return sa.func.dfrun_at(sa.type_coerce(column, sa.Text()), sa.literal(json.dumps(list(steps)), sa.Text()))
    here: ColumnElement[Any] = sa.type_coerce(column, JSONB())
    for step in steps:
        here = child(here, step)
    return sa.func.nullif(here, sa.literal_column("'null'::jsonb"), type_=JSONB())
