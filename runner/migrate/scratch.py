"""A place without rows to try statements in, gone afterwards: a schema that is rolled back, or `:memory:`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from runner.dialects.session import open_engine
from runner.migrate import postgresql, sqlite
from runner.migrate.connection import Live, connect
from runner.migrate.snapshot import Snapshot
from runner.sql.fulltext import FUNCTION


@asynccontextmanager
async def scratch(live: Live, statements: Sequence[str]) -> AsyncIterator[Live]:
    """A connection on a place where these statements have run. On PostgreSQL it is the same connection, inside the
    transaction that must be open, and other schemas stay visible behind the new one."""
    if live.database == "sqlite":
        engine = open_engine("sqlite:///:memory:", poolclass=NullPool)
        try:
            async with connect(engine) as memory:
                await memory.execute("PRAGMA foreign_keys=OFF")
                await memory.script(statements)
                yield memory
        finally:
            await engine.dispose()
        return
    await live.execute("SAVEPOINT dfrun_scratch")
    try:
        schema = await _schema(live)
        place = (_Temporary if schema == "pg_temp" else Live)(live.connection, schema, live.version)
        path = await live.value("SELECT current_setting('search_path')")
        await live.execute(f"SET LOCAL search_path = {place.schema}, {path or 'pg_catalog'}")
        await place.script(statements)
        yield place
    finally:
        await live.rolled_back("ROLLBACK TO SAVEPOINT dfrun_scratch")


class _Temporary(Live):
    """A place among the temporary tables of the session, where a function is found by its whole name alone."""

    async def execute(self, sql: str) -> int:
        return await super().execute(_whole(sql))

    async def script(self, statements: Sequence[str]) -> None:
        await super().script([_whole(sql) for sql in statements])


def _whole(sql: str) -> str:
    return sql.replace(f"{FUNCTION}(", f"pg_temp.{FUNCTION}(")


async def _schema(live: Live) -> str:
    """A new schema; the one of temporary tables for a user who may create none."""
    name = f"_dfrun_scratch_{secrets.token_hex(4)}"
    if await live.value("SELECT has_database_privilege(current_database(), 'CREATE')"):
        await live.execute(f"CREATE SCHEMA {name}")
        return name
    return "pg_temp"


async def read(live: Live, tables: frozenset[str] | None = None) -> Snapshot:
    """The tables of the database at hand, dfrun's trash included."""
    if live.database == "sqlite":
        return await sqlite.read(live, tables)
    return await postgresql.read(live, tables)


async def copy_statements(live: Live, snapshot: Snapshot) -> list[str]:
    """The statements that make a scratch like the live database: on SQLite all of it, with triggers and views."""
    if live.database == "sqlite":
        return await sqlite.copy_statements(live)
    return postgresql.copy_statements(snapshot)


def is_read_only(error: BaseException) -> bool:
    """Whether a statement failed because the server takes no writes."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") == "25006"
