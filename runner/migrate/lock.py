"""One migration at a time on one schema: a session's advisory lock, polled, and a queue that orders those who wait.

Never blocks in `pg_advisory_lock`: a blocked waiter holds a snapshot, and CREATE INDEX CONCURRENTLY waits for it, until
the server kills one of the two as a deadlock. SQLite needs none of this: its write transaction is the lock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.errors import Problem, TablesError
from runner.migrate import history
from runner.migrate.connection import Live, connect
from runner.migrate.postgresql import literal

_POLL_SECONDS = 0.05, 0.5
_STALE = timedelta(seconds=15)


class LockError(TablesError):
    """The lock was not obtained: trying again may help."""

    exit_code = 75


@dataclass(slots=True)
class Lock:
    """The lock, held until its connection closes."""

    live: Live
    key: str
    waited_ms: int

    async def ping(self) -> None:
        """Raises `LockError` when the connection, and so the lock, is gone."""
        from runner.dialects.errors import is_database_error

        try:
            is_held = await self.live.value(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
            )
        except Exception as error:
            if not is_database_error(error):
                raise
            is_held = 0
        if not is_held:
            why = "the connection that holds the lock is gone, and another process may have begun"
            raise LockError(Problem("DF615", "the migration lock was lost", None, why, "dfrun migrate resume"))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in the queue. `position`: how many are before it."""

    position: int
    priority: int
    requested_at: str
    requested_by: str


@asynccontextmanager
async def held(engine: AsyncEngine, schema: str, timeout_seconds: float, priority: int = 0) -> AsyncIterator[Lock]:
    """The lock of a schema, on a connection of its own. Raises `LockError` DF615 after `timeout_seconds`."""
    started = time.monotonic()
    async with connect(engine) as live:
        key = await _key(live, schema)
        place: int | None = None
        try:
            while not await _try(live, key, place):
                if place is None:
                    await history.create(live)
                    place = await _enqueue(live, schema, priority)
                if time.monotonic() - started > timeout_seconds:
                    what = f"another migration of the schema {schema!r} holds the lock"
                    why = f"waited {timeout_seconds:g} s for it"
                    raise LockError(Problem("DF615", what, None, why, "try again, or look: dfrun migrate status"))
                await _seen(live, place)
                await asyncio.sleep(random.uniform(*_POLL_SECONDS) / 2)
        finally:
            if place is not None:
                await _leave(live, place)
        yield Lock(live, key, round((time.monotonic() - started) * 1000))


async def is_held(live: Live) -> bool:
    """Whether a migration of this schema is going on."""
    if live.database == "sqlite":
        return False
    key = await _key(live, live.schema)
    sql = f"""SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((classid::bigint << 32) | objid::bigint) = {key}"""
    return bool(await live.value(sql))


async def queue(live: Live) -> list[Waiting]:
    """Who waits for the lock of this schema, the next one first."""
    if live.database == "sqlite" or not await history.is_there(live):
        return []
    table = history.queue_of(live)
    rows = await live.run(_waiting(table, live.schema))
    return [Waiting(i, r.priority, r.requested_at, r.requested_by or "?") for i, r in enumerate(rows.all())]


def _waiting(table: sa.Table, schema: str) -> sa.Select[tuple[object, ...]]:
    fresh = (datetime.now(UTC) - _STALE).isoformat(timespec="milliseconds")
    return (
        sa.select(table)
        .where(table.c.scope == schema, table.c.seen_at > fresh)
        .order_by(table.c.priority.desc(), table.c.id)
    )


async def _key(live: Live, schema: str) -> str:
    sql = f"SELECT hashtextextended('dfrun:' || current_database() || ':' || {literal(schema)}, 0)::text"
    return str(await live.value(sql))


async def _try(live: Live, key: str, place: int | None) -> bool:
    """Take the lock if it is free and nobody is before us; the lock is the truth, the queue only orders."""
    if await history.is_there(live):
        table = history.queue_of(live)
        schema = await live.value("SELECT current_schema()")
        first = (await live.run(_waiting(table, schema).limit(1))).first()
        if first is not None and first.id != place:
            return False
    return bool(await live.value(f"SELECT pg_try_advisory_lock({key})"))


async def _enqueue(live: Live, schema: str, priority: int) -> int:
    table, now = history.queue_of(live), history.now()
    row = {"scope": schema, "priority": priority, "requested_at": now, "seen_at": now, "requested_by": history.user()}
    found = await live.run(table.insert().values(row).returning(table.c.id))
    return int(found.scalar_one())


async def _seen(live: Live, place: int) -> None:
    table = history.queue_of(live)
    await live.run(table.update().where(table.c.id == place).values(seen_at=history.now()))


async def _leave(live: Live, place: int) -> None:
    table = history.queue_of(live)
    await live.run(table.delete().where(table.c.id == place))
