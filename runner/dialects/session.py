"""A transaction over SQLAlchemy Core, the same on both databases.

SQLite opens it with an explicit BEGIN IMMEDIATE: with the driver's defaults a CREATE TABLE survives the rollback of the
transaction it was in, and a read that turns into a write fails at once whatever the busy timeout.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.base import Executable

from runner.filters import Database
from schemas.shapes import ModelShape

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "case_sensitive_like=ON")


def open_engine(url: str | sa.URL, **options: Any) -> AsyncEngine:
    """An engine for `postgresql://…` or `sqlite:///…`; the driver is chosen here, parameters never reach a log."""
    parsed = sa.make_url(url)
    name = parsed.get_backend_name()
    driver = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}[name]
    if name == "postgresql":
        return create_async_engine(parsed.set(drivername=driver), hide_parameters=True, **options)
    connect: dict[str, Any] = {"isolation_level": None}
    engine = create_async_engine(parsed.set(drivername=driver), hide_parameters=True, connect_args=connect, **options)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


class CoreSession:
    """One transaction on one connection."""

    def __init__(self, connection: AsyncConnection, tables: Mapping[str, sa.Table]) -> None:
        self._connection = connection
        self._tables = tables
        self.database: Database = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"

    def table(self, model: ModelShape) -> sa.Table:
        """The table of a model."""
        return self._tables[model.name]

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

    async def execute(self, statement: Executable) -> int:
        """How many rows the statement changed."""
        return int((await self._connection.execute(statement)).rowcount)


@asynccontextmanager
async def open_session(engine: AsyncEngine, tables: Mapping[str, sa.Table]) -> AsyncIterator[CoreSession]:
    """A transaction that commits when the block ends well and rolls back otherwise."""
    async with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield CoreSession(connection, tables)
        except BaseException:
            await connection.rollback()
            raise
        await connection.commit()
