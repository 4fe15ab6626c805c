"""Transactions over SQLAlchemy Core, the same on both databases.

SQLite opens them with an explicit BEGIN: with the driver's defaults a CREATE TABLE survives the rollback of the
transaction it was in. Writers say IMMEDIATE and take turns: a read that turns into a write fails at once whatever the
busy timeout.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.base import Executable

from runner import decimals, jsonedit, jsonwalk
from runner.filters import Database
from runner.patterns import matches_pattern
from schemas.shapes import ModelShape
from schemas.types import INTEGER_MAX, INTEGER_MIN

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "case_sensitive_like=ON")


def open_engine(url: str | sa.URL, **options: Any) -> AsyncEngine:
    """An engine for `postgresql://…` or `sqlite:///…`; the driver is chosen here, parameters never reach a log."""
    parsed = sa.make_url(url)
    name = parsed.get_backend_name()
    driver = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}[name]
    if name == "postgresql":
        options = {"json_deserializer": _loads, **options}
        return create_async_engine(parsed.set(drivername=driver), hide_parameters=True, **options)
    connect: dict[str, Any] = {"isolation_level": None}
    engine = create_async_engine(parsed.set(drivername=driver), hide_parameters=True, connect_args=connect, **options)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        try:
            _settle(connection)
        except BaseException:
            connection.close()  # its thread would outlive the loop otherwise
            raise

    return engine


def _loads(text: str) -> Any:
    """A jsonb value. PostgreSQL writes 1e300 with all its digits: what is beyond 64 bits was a double."""
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | float:
    is_whole = len(digits) < 19 or (len(digits) < 21 and INTEGER_MIN <= int(digits) <= INTEGER_MAX)
    return int(digits) if is_whole else float(digits)


def _settle(connection: Any) -> None:
    """The settings and functions that every SQLite connection has."""
    connection.create_function("dfrun_matches", 2, matches_pattern, deterministic=True)
    connection.create_function("dfrun_decimal", 6, decimals.change, deterministic=True)
    connection.create_function("dfrun_average", 4, decimals.average, deterministic=True)
    connection.create_function("dfrun_bytes", 1, lambda text: None if text is None else bytes.fromhex(text))
    connection.create_function("dfrun_leaves", 3, jsonwalk.leaves_of, deterministic=True)
    connection.create_function("dfrun_is_there", 2, jsonwalk.is_at, deterministic=True)
    connection.create_function("dfrun_canonical", 1, jsonwalk.canonical_at, deterministic=True)
    connection.create_function("dfrun_at", 2, jsonwalk.canonical_at, deterministic=True)
    connection.create_function("dfrun_change", 2, jsonedit.change_document, deterministic=True)
    connection.create_function("dfrun_misfit", 2, jsonedit.misfit_number, deterministic=True)
    connection.create_function("dfrun_finite", 1, decimals.finite, deterministic=True)
    connection.create_function("dfrun_overflow", 0, decimals.overflow)
    connection.create_function("dfrun_remainder", 2, decimals.remainder, deterministic=True)
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class CoreSession:
    """One transaction on one connection."""

    def __init__(self, connection: AsyncConnection, tables: Mapping[str, sa.Table]) -> None:
        self._connection = connection
        self._tables = tables
        self.database: Database = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"

    def table(self, model: ModelShape) -> sa.Table:
        """The table of a model."""
        return self._tables[model.name]

    def table_named(self, model: str) -> sa.Table:
        """The table of the model with this name."""
        return self._tables[model]

    async def fetch(self, statement: Executable) -> list[tuple[object, ...]]:
        """All rows, each value in its Python type."""
        return [tuple(row) for row in (await self._connection.execute(statement)).all()]

    async def stream(
        self, statement: Executable, rows_per_batch: int = 5_000
    ) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows in batches from a cursor of the server; memory stays bounded."""
        result = await self._connection.stream(statement)
        async for rows in result.partitions(rows_per_batch):
            yield [tuple(row) for row in rows]

    async def ask(self, statement: Executable) -> tuple[tuple[str, ...], AsyncIterator[list[tuple[object, ...]]]]:
        """The names of the columns, and the rows in batches."""
        result = await self._connection.stream(statement)

        async def batches() -> AsyncIterator[list[tuple[object, ...]]]:
            async for rows in result.partitions(5_000):
                yield [tuple(row) for row in rows]

        return tuple(result.keys()), batches()

    async def execute(self, statement: Executable, parameters: Any = None) -> int:
        """How many rows the statement changed; `parameters` is a mapping, or a list of them for many rows."""
        return int((await self._connection.execute(statement, parameters)).rowcount)

    @property
    def connection(self) -> AsyncConnection:
        """The connection the transaction is on."""
        return self._connection

    async def driver(self) -> Any:
        """The driver's own connection, for the fast paths of one database."""
        raw = await self._connection.get_raw_connection()
        connection = raw.driver_connection
        assert connection is not None
        if self.database == "postgresql" and not connection.is_in_transaction():
            # SQLAlchemy begins with its own first statement, and what bypasses it must be inside
            await self._connection.exec_driver_sql("SELECT 1")
        return connection

    def compiled(self, statement: Executable) -> str:
        """The statement as this database reads it."""
        return str(statement.compile(dialect=self._connection.dialect))  # type: ignore[attr-defined]


class Store:
    """One database: its engine, the tables of the models, and whose turn it is to write."""

    def __init__(self, engine: AsyncEngine, tables: Mapping[str, sa.Table]) -> None:
        self.engine = engine
        self.tables = tables
        self.database: Database = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        # SQLite has one writer. Waiting here keeps the order and no thread; the busy timeout is for other processes.
        self._turn = asyncio.Lock() if self.database == "sqlite" else None

    @asynccontextmanager
    async def session(self, *, writes: bool = True, timeout_seconds: float | None = None) -> AsyncIterator[CoreSession]:
        """A transaction that commits when the block ends well and rolls back otherwise.

        timeout_seconds: bounds each statement in the server, too (PostgreSQL). A connection on which anything was
        cancelled is closed, never used again.
        """
        async with self._turn if self._turn and writes else nullcontext(), self.engine.connect() as connection:
            if self.database == "sqlite":
                await connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
            elif timeout_seconds is not None:
                await connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(timeout_seconds * 1000))}")
            try:
                yield CoreSession(connection, self.tables)
            except asyncio.CancelledError:
                await asyncio.shield(self._abandon(connection))
                raise
            except BaseException:
                await connection.rollback()
                raise
            await _unbroken(connection.commit())

    async def _abandon(self, connection: AsyncConnection) -> None:
        if self.database == "sqlite":
            # the statement goes on in its thread until it is told to stop
            raw = await connection.get_raw_connection()
            if raw.driver_connection is not None:
                await raw.driver_connection.interrupt()
            await connection.rollback()
        await connection.invalidate()


async def _unbroken(work: Any) -> None:
    """Wait for `work` to its end even when the waiter is cancelled: a COMMIT that was sent is a COMMIT."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


@asynccontextmanager
async def open_session(engine: AsyncEngine, tables: Mapping[str, sa.Table]) -> AsyncIterator[CoreSession]:
    """One transaction of its own on a database."""
    async with Store(engine, tables).session() as session:
        yield session
