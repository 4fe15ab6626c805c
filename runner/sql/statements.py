"""The one place where a query becomes a statement. What a row that is hidden, stamped or guarded needs is in the query
by then (`features`); what is particular to a database is in `dialects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.elements import ColumnElement

from runner.dialects.data import data_table
from runner.dialects.types import column_type
from runner.query import EVERY_ROW, Absent, Count, Delete, Insert, Load, Query, Read, Summary, Update, Upsert
from runner.sql.aggregates import aggregate_statement, results
from runner.sql.filters import Columns, Database, condition
from runner.sql.fulltext import search_condition
from runner.sql.jsonchange import misfit
from runner.sql.orders import after, order
from runner.sql.updates import changes, parts_by_field
from schemas.filters import Filter
from schemas.shapes import ModelShape
from schemas.sqltext import SqlText
from schemas.types import ValueType


def statement(query: Query, table: sa.Table, database: Database) -> Executable:
    """The statement that asks or does what the query says. A `Load` is none: it goes the database's fast way."""
    match query:
        case Read():
            return _read(query, table, database)
        case Count():
            counted = sa.select(sa.func.count()).select_from(table).where(*_asked(query, table, database))
            return _matching(counted, query, table, database)
        case Absent():
            return _absent(query, table, database)
        case Summary():
            return _summary(query, table, database)
        case Insert():
            return sa.insert(table).values(dict(query.values)).returning(*_fields(query.model, table))
        case Upsert():
            return _upsert(query, table, database)
        case Update():
            return _update(query, table, database)
        case Delete():
            return sa.delete(table).where(_first(query, table, database))
        case _:
            raise AssertionError(f"{type(query).__name__} is loaded, not stated")


def own_statement(
    sql: SqlText, values: Mapping[str, object], kinds: Mapping[str, ValueType],
    columns: Mapping[str, ValueType] | None = None,
) -> Executable:  # fmt: skip
    """A statement of the user's own with its values bound; `columns` types what it gives."""
    places = [sa.bindparam(n, values[n], type_=_own_type(kinds[n])) for n in sql.names]
    text = sa.text(sql.text).bindparams(*places)
    return text.columns(**{n: column_type(kind) for n, kind in columns.items()}) if columns is not None else text


def _own_type(kind: ValueType) -> sa.types.TypeEngine[Any] | None:
    if kind.kind in ("any", "json"):
        return None
    if kind.kind == "list" and kind.items is not None and kind.items.kind not in ("any", "json", "list", "record"):
        # an array where the database has them, JSON text where it has not
        return postgresql.ARRAY(column_type(kind.items)).with_variant(column_type(kind), "sqlite")
    return column_type(kind)


def _fields(model: ModelShape, table: sa.Table) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in model.fields]


def _where(model: ModelShape, tree: Filter, table: sa.Table, database: Database) -> ColumnElement[bool]:
    return condition(tree, dict(table.c), model.types, database)


def _asked(query: Read | Count | Absent | Summary, table: sa.Table, database: Database) -> list[ColumnElement[bool]]:
    """The condition of a question; none where it is about every row, so that nobody reads `WHERE 1 = 1`."""
    return [] if query.where == EVERY_ROW else [_where(query.model, query.where, table, database)]


def _read(query: Read, table: sa.Table, database: Database) -> sa.Select[Any]:
    columns = [table.c[name] for name in query.fields]
    found = sa.select(*columns).where(*_asked(query, table, database))
    found = _matching(found, query, table, database)
    if query.search is not None:
        found = found.where(search_condition(query.search, query.model, table, database))
    if query.after is not None:
        found = found.where(after(query.orders, query.after, dict(table.c), query.model.types, database))
    found = found.order_by(*order(query.orders, dict(table.c), query.model.types, database))
    if query.limit is not None:
        found = found.limit(query.limit)
    if query.offset is not None:
        found = found.offset(query.offset)
    # SQLite's writers take turns: whoever holds the transaction holds every row
    return found.with_for_update() if query.locks and database == "postgresql" else found


def _matching(found: sa.Select[Any], query: Read | Count, table: sa.Table, database: Database) -> sa.Select[Any]:
    """Of the rows found those that share their key with one of the data."""
    if query.data is None:
        return found
    data, given = data_table(database, query.data.names, query.data.kinds, query.data.rows)
    return found.select_from(data).where(*(table.c[name] == given[name] for name in query.data.key))


def _absent(query: Absent, table: sa.Table, database: Database) -> sa.Select[Any]:
    data, given = data_table(database, ["v"], [query.kind], [(value,) for value in query.values])
    is_there = sa.exists().where(table.c[query.name] == given["v"], *_asked(query, table, database))
    return sa.select(given["v"]).select_from(data).where(~is_there)


def _summary(query: Summary, table: sa.Table, database: Database) -> sa.Select[Any]:
    where = _asked(query, table, database)
    inner = aggregate_statement(
        table, where, query.groups, query.aggregates, query.model.types, database,
        is_compared=query.having is not None or bool(query.orders),
    )  # fmt: skip
    return results(inner, query.types, query.having, query.orders, query.limit, database)


def _update(query: Update, table: sa.Table, database: Database) -> sa.Update:
    where, given = _to_update(query, table, database)
    values: dict[str, Any] = dict(changes(query.assigns, dict(table.c), query.model.types, database, given))
    change = sa.update(table).where(*where).values(values)
    return change.returning(*_fields(query.model, table)) if query.gives_rows else change


def _to_update(query: Update, table: sa.Table, database: Database) -> tuple[list[ColumnElement[bool]], Columns | None]:
    """The condition of the rows that change, and the columns of the data that changes them."""
    where = [_first(query, table, database)]
    if query.data is None:
        return where, None
    # UPDATE … FROM: the data's columns in the condition name it
    _, given = data_table(database, query.data.names, query.data.kinds, query.data.rows)
    return [*where, *(table.c[name] == given[name] for name in query.data.key)], given


def misfits(query: Update, table: sa.Table, database: Database) -> dict[str, sa.Select[Any]]:
    """For each column with changes inside its JSON: the question for one row that they do not fit, answered with the
    number of the first that does not."""
    where, _ = _to_update(query, table, database)
    found = {}
    for name, parts in parts_by_field(query.assigns).items():
        number = misfit(parts, table.c[name], database)
        found[name] = sa.select(number).select_from(table).where(*where, number.is_not(None)).limit(1)
    return found


def _first(query: Update | Delete, table: sa.Table, database: Database) -> ColumnElement[bool]:
    """The condition of a write; with a limit, the keys of the first rows."""
    where = _where(query.model, query.where, table, database)
    if query.limit is None:
        return where
    keys: list[ColumnElement[Any]] = [table.c[name] for name in query.model.primary_key]
    inner = sa.select(*keys).where(where).order_by(*keys).limit(query.limit)
    if database == "postgresql":
        # as a subselect it may be asked again for every row, and each time find the next rows to lock
        first = inner.with_for_update().cte("first_rows").prefix_with("MATERIALIZED")
        inner = sa.select(*(first.c[name] for name in query.model.primary_key))
    # a key may be another tenant's, too: the condition stands around the choice as it does in it
    return sa.and_(where, (sa.tuple_(*keys) if len(keys) > 1 else keys[0]).in_(inner))


def _upsert(query: Upsert, table: sa.Table, database: Database) -> Executable:
    insert = (postgresql.insert if database == "postgresql" else sqlite.insert)(table).values(dict(query.values))
    changed: dict[str, Any] = dict(changes(query.assigns, dict(table.c), query.model.types, database))
    if not changed:
        changed = {query.key[0]: insert.excluded[query.key[0]]}  # the row must be touched to be given back
    covers, may_change = conflict_rows(query, table, database)
    upsert = insert.on_conflict_do_update(
        index_elements=list(query.key), index_where=covers, set_=changed, where=may_change
    )
    # no transaction has replaced this version of the row yet; SQLite is asked beforehand
    is_new = sa.literal_column("xmax = 0") if database == "postgresql" else sa.null()
    return upsert.returning(*_fields(query.model, table), is_new.label("is_new"))


def conflict_rows(
    query: Upsert | Load, table: sa.Table, database: Database
) -> tuple[ColumnElement[bool] | None, ColumnElement[bool] | None]:
    """Which rows the key's index is about, and which of them a conflict may change; None: every row."""
    covers, may_change = (
        None if tree == EVERY_ROW else _where(query.model, tree, table, database)
        for tree in (query.covers, query.may_change)
    )
    return covers, may_change
