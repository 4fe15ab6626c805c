"""What is asked of a model's table, as records. Node kinds ask with them, features rewrite them, `statements` turns
each into SQL: until then a query is data, so that no feature has to take a statement apart.

Knows no SQLAlchemy: plans are made of these, offline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from schemas.aggregates import Aggregate
from schemas.filters import All, Compare, Filter, Order
from schemas.shapes import ModelShape
from schemas.types import ValueType
from schemas.updates import Assign

if TYPE_CHECKING:
    from schemas.searches import Search

Conflict = Literal["error", "skip", "upsert"]
Deleted = Literal["hidden", "included", "only"]
"""Which rows a query meets of those that were softly deleted; means nothing for models without `soft_delete`."""
EVERY_ROW: Filter = All()


@dataclass(frozen=True, slots=True)
class RowData:
    """Rows of data beside a table: `names` and `kinds` in the order of their values. `key` names the columns that a
    row of the table must share with one of them."""

    names: tuple[str, ...]
    kinds: tuple[ValueType, ...]
    rows: Sequence[Sequence[Any]] = field(hash=False)
    key: tuple[str, ...] = ()


# --- reads -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Some fields of the rows that `where` finds; with `data`, only of rows whose key is in it.

    search: only rows in which its words occur.
    after: only rows that come later in `orders` than the row with these values, one for each order.
    locks: nobody else changes these rows until the transaction ends.
    """

    model: ModelShape
    fields: tuple[str, ...]
    where: Filter = EVERY_ROW
    orders: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int | None = None
    locks: bool = False
    data: RowData | None = None
    deleted: Deleted = "hidden"
    after: tuple[object, ...] | None = None
    search: Search | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows `where` finds, with `data` of those whose key is in it: one row of one number."""

    model: ModelShape
    where: Filter = EVERY_ROW
    deleted: Deleted = "hidden"
    data: RowData | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """Those of `values` that no row has in the field `name`, one a row."""

    model: ModelShape
    name: str
    kind: ValueType
    values: Sequence[object] = field(hash=False)
    where: Filter = EVERY_ROW


@dataclass(frozen=True, slots=True)
class Summary:
    """One row a group, exactly one without groups; `types` are the result columns in order. `having`, `orders` and
    `limit` are about the result rows."""

    model: ModelShape
    groups: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    types: Mapping[str, ValueType] = field(hash=False)
    where: Filter = EVERY_ROW
    having: Filter | None = None
    orders: tuple[Order, ...] = ()
    limit: int | None = None
    deleted: Deleted = "hidden"


# --- writes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Insert:
    """One new row; gives all its fields."""

    model: ModelShape
    values: Mapping[str, object] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Upsert:
    """One new row or, where one with its `key` is there, that row changed by `assigns`; gives all its fields and
    whether it is new.

    covers: the rows that the unique index of the key is about. may_change: a row that conflicts and is not among these
    stays, and nothing is given.
    """

    model: ModelShape
    values: Mapping[str, object] = field(hash=False)
    key: tuple[str, ...]
    assigns: tuple[Assign, ...]
    covers: Filter = EVERY_ROW
    may_change: Filter = EVERY_ROW


@dataclass(frozen=True, slots=True)
class Update:
    """The rows that `where` finds become what `assigns` say: at most `limit` of them, the first by primary key; with
    `data`, each row by the row of data that has its key. gives_rows: all fields of each row, as they are afterwards.
    With `deleted: only` the rows come back to life."""

    model: ModelShape
    where: Filter
    assigns: tuple[Assign, ...]
    limit: int | None = None
    data: RowData | None = None
    gives_rows: bool = False
    deleted: Deleted = "hidden"


@dataclass(frozen=True, slots=True)
class Delete:
    """The rows that `where` finds go away: at most `limit` of them, the first by primary key. hard: for good."""

    model: ModelShape
    where: Filter
    limit: int | None = None
    hard: bool = False
    deleted: Deleted = "hidden"


@dataclass(frozen=True, slots=True)
class Load:
    """Many new rows by the fastest way there is, `constants` in each. A row that conflicts is an error, is skipped, or
    changes the row that has its `key`, which takes over the columns `update` and goes up by one in those of
    `counts_up`. `covers` and `may_change` are as for `Upsert`."""

    model: ModelShape
    columns: tuple[str, ...]
    kinds: tuple[ValueType, ...]
    rows: Sequence[tuple[Any, ...]] = field(hash=False)
    constants: Mapping[str, object] = field(default_factory=dict, hash=False)
    conflict: Conflict = "error"
    key: tuple[str, ...] = ()
    update: tuple[str, ...] = ()
    counts_up: tuple[str, ...] = ()
    covers: Filter = EVERY_ROW
    may_change: Filter = EVERY_ROW


Question = Read | Count | Absent | Summary
Write = Insert | Upsert | Update | Delete | Load
Query = Question | Write


def row_with(values: Mapping[str, object], names: Sequence[str]) -> Filter:
    """The condition of the row that has these values in `names`."""
    return All(tuple(Compare(name, "$eq", values[name]) for name in names))
