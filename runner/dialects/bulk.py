"""Many rows into a table, the fastest way each database has: COPY on PostgreSQL (straight into the table, or by a
temporary one where rows may conflict), multi-row VALUES on SQLite. Measured in `benchmarks/bulk.py`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from runner.dialects.base import Session
from runner.dialects.row_security import SECURED
from runner.dialects.types import to_sqlite
from runner.query import Conflict
from schemas.jsonvalues import json_value
from schemas.types import ValueType

SQLITE_BIND_LIMIT = 32_766
SQLITE_ROWS_PER_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class Load:
    """Where rows go and what happens to those that conflict. `columns` in the order of the rows' values, last those of
    the `constants`, which are the same in every row. For upserts: `update` are the columns that a conflicting row takes
    over, `counts_up` those that go up by one, `covers` and `may_change` the conditions of `query.Load`."""

    table: sa.Table
    columns: tuple[str, ...]
    kinds: tuple[ValueType, ...]
    conflict: Conflict = "error"
    key: tuple[str, ...] = ()
    update: tuple[str, ...] = ()
    counts_up: tuple[str, ...] = ()
    covers: sa.ColumnElement[bool] | None = None
    may_change: sa.ColumnElement[bool] | None = None
    constants: tuple[Any, ...] = ()

    def upserted(self, insert: Any) -> Any:
        """The INSERT with what happens to a row that is there."""
        taken = {n: insert.excluded[n] for n in self.update or self.key[:1]}
        counted = {n: sa.type_coerce(self.table.c[n], sa.BigInteger()) + sa.literal_column("1") for n in self.counts_up}
        return insert.on_conflict_do_update(
            index_elements=list(self.key), index_where=self.covers, set_=taken | counted, where=self.may_change
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows came to be, were changed, were passed over."""

    created: int = 0
    updated: int = 0
    skipped: int = 0

    def __add__(self, other: Loaded) -> Loaded:
        return Loaded(self.created + other.created, self.updated + other.updated, self.skipped + other.skipped)


async def load_rows(session: Session, load: Load, rows: Sequence[tuple[Any, ...]], known: int = 0) -> Loaded:
    """Put `rows` into the table; exact counts. For an upsert no two of them may have the same key, and SQLite must be
    told how many keys are there already."""
    if not rows:
        return Loaded()
    if session.database == "sqlite":
        return await _load_sqlite(session, load, rows, known)
    driver = await session.driver()
    records = _for_copy(load, [row + load.constants for row in rows] if load.constants else rows)
    is_secured = bool(load.table.info.get(SECURED))  # COPY has no row-level security, and is refused by the server
    if load.conflict == "error" and not is_secured:
        await driver.copy_records_to_table(load.table.name, records=records, columns=load.columns)
        return Loaded(created=len(rows))
    name = await _stage(driver, load)
    await driver.copy_records_to_table(name, records=records, columns=load.columns)
    staging = sa.Table(name, sa.MetaData(), *(sa.Column(n, load.table.c[n].type) for n in load.columns))
    # the order of keys is the same in every process, so that two loads of the same rows do not lock each other out
    ordered = sa.select(*staging.c).order_by(*(staging.c[n] for n in load.key))
    insert = postgresql.insert(load.table).from_select(load.columns, ordered)
    if load.conflict == "error":
        loaded = Loaded(created=await session.execute(insert))
    elif load.conflict == "skip":
        created = await session.execute(insert.on_conflict_do_nothing())
        loaded = Loaded(created=created, skipped=len(rows) - created)
    else:
        written = load.upserted(insert).returning(sa.literal_column("xmax = 0").label("is_new")).cte("written")
        is_new = sa.type_coerce(written.c.is_new, sa.Boolean())
        counted = await session.fetch(sa.select(sa.func.count().filter(is_new), sa.func.count()).select_from(written))
        fresh, total = (int(str(number)) for number in counted[0])
        loaded = Loaded(created=fresh, updated=total - fresh)
    await driver.execute(f"TRUNCATE {name}")
    return loaded


async def _stage(driver: Any, load: Load) -> str:
    """The temporary table that takes these columns of this table; one transaction may load several."""
    preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    columns = ", ".join(preparer.quote(name) for name in load.columns)
    table = preparer.quote(load.table.name)
    name = f"dfrun_load_{zlib.crc32(f'{table} {columns}'.encode()):08x}"
    if await driver.fetchval(f"SELECT to_regclass('pg_temp.{name}')") is None:
        await driver.execute(
            f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"
        )
    return name


def _for_copy(load: Load, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    """Rows as COPY takes them: json as its text."""
    trees = [index for index, kind in enumerate(load.kinds) if kind.kind in ("json", "list")]
    if not trees:
        return rows
    copied = []
    for row in rows:
        values = list(row)
        for index in trees:
            values[index] = None if values[index] is None else json.dumps(json_value(values[index]), ensure_ascii=False)
        copied.append(tuple(values))
    return copied


async def _load_sqlite(session: Session, load: Load, rows: Sequence[tuple[Any, ...]], known: int) -> Loaded:
    driver = await session.driver()
    into = sqlite.insert(load.table)
    statement: Any = into
    if load.conflict == "skip":
        statement = into.on_conflict_do_nothing()
    elif load.conflict == "upsert":
        statement = load.upserted(into)
    one = str(statement.compile(dialect=sqlite.dialect(), column_keys=list(load.columns)))
    before, found, after = one.partition(f"VALUES ({', '.join('?' * len(load.columns))})")
    assert found and "?" not in after, f"an INSERT of an unknown form: {one}"
    order = [load.columns.index(name) for name in _columns_in(load, one)]
    own = len(load.columns) - len(load.constants)
    # what is the same in every row is bound once, in the places before those of the rows; a plain `?` follows the
    # largest number so far, so that the first of them says where they begin
    kept = [_stored(kind, value) for kind, value in zip(load.kinds[own:], load.constants, strict=True)]
    group = f"({', '.join('?' if index < own else f'?{index - own + 1}' for index in order)})"
    order = [index for index in order if index < own]
    writers = [_writer(load.kinds[index]) for index in order]
    size = max(1, min(SQLITE_ROWS_PER_STATEMENT, (SQLITE_BIND_LIMIT - len(kept)) // max(1, own)))
    first = re.sub(r"\?(?!\d)", f"?{len(kept) + 1}", group, count=1)
    count = 0
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        values = kept + _flat(part, order, writers)
        groups = ", ".join([first, *[group] * (len(part) - 1)])
        cursor = await driver.execute(f"{before}VALUES {groups}{after}", values)
        count += cursor.rowcount
        await cursor.close()
    match load.conflict:
        case "error":
            return Loaded(created=count)
        case "skip":
            return Loaded(created=count, skipped=len(rows) - count)
        case _:
            return Loaded(created=count - known, updated=known)


def _flat(rows: Sequence[tuple[Any, ...]], order: list[int], writers: list[Callable[[Any], Any] | None]) -> list[Any]:
    if not any(writers) and order == list(range(len(order))):
        return [value for row in rows for value in row]
    plan = list(zip(order, writers, strict=True))
    return [row[i] if write is None else write(row[i]) for row in rows for i, write in plan]


def _columns_in(load: Load, statement: str) -> list[str]:
    """The columns in the order of the statement: SQLAlchemy writes them in the table's."""
    return [column.name for column in load.table.columns if column.name in load.columns]


def _stored(kind: ValueType, value: Any) -> Any:
    write = _writer(kind)
    return value if write is None else write(value)


def _writer(kind: ValueType) -> Callable[[Any], Any] | None:
    """What SQLite keeps for a value of this type, as a function; None where that is the value itself."""
    if kind.kind in ("string", "text", "integer", "float", "enum", "bytes"):
        return None
    return lambda value: to_sqlite(kind, value)


async def reserve_ids(session: Session, table: sa.Table, name: str, count: int) -> list[int]:
    """`count` generated keys that nobody else will get."""
    if not count:
        return []
    if session.database == "postgresql":
        named = sa.cast(sa.func.pg_get_serial_sequence(table.name, name), postgresql.REGCLASS)
        taken = sa.func.nextval(sa.select(named).scalar_subquery(), type_=sa.BigInteger())
        numbers = sa.func.generate_series(1, count).table_valued("n")
        found: Any = await session.fetch(sa.select(sa.func.array_agg(taken)).select_from(numbers))
        return list(found[0][0])
    # the one writer is here: the next keys are those after the largest that ever was, which AUTOINCREMENT keeps
    kept = sa.table("sqlite_sequence", sa.column("seq"), sa.column("name"))
    found = await session.fetch(sa.select(kept.c.seq).where(kept.c.name == table.name))
    first = (int(str(found[0][0])) if found else 0) + 1
    return list(range(first, first + count))
