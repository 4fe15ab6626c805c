"""One database as a run uses it: its connections, its transactions, and whose turn it is to write.

dfrun says BEGIN and COMMIT itself on both databases, so that what must be written beside a step's effect travels with
them. Connections are held between transactions: taking one from the pool costs more than a small step.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runner.dialects.bound import Bound
from runner.dialects.row_security import SECURED, binding
from runner.dialects.session import CoreSession
from runner.sql.filters import Database
from schemas.pipeline import Isolation

LOCK_SECONDS = 60
"""How long a statement waits for a lock of another transaction."""
IDLE_SECONDS = 120
"""How long a transaction may stand still before the server ends it: a paused process must not hold its locks."""


_INTERRUPT_SECONDS = 0.05


class CommitLost(ConnectionError):
    """The connection broke while COMMIT was under way: it may have landed or not. The cause is chained."""


@dataclass(slots=True)
class _Held:
    connection: AsyncConnection
    driver: Any
    prepared: dict[str, Any] = field(default_factory=dict)
    """The statements that it keeps ready, by their text."""
    is_ending: bool = False
    """Its COMMIT is under way, which nobody interrupts."""


class Store:
    """One database: its engine, the tables of the models, and its open connections: as many as work at once, fewer
    where the server gives fewer."""

    def __init__(self, engine: AsyncEngine, tables: Mapping[str, sa.Table]) -> None:
        self.engine = engine
        self.tables = tables
        self.database: Database = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        # SQLite has one writer. Waiting here keeps the order and no thread; the busy timeout is for other processes.
        self._is_secured = any(table.info.get(SECURED) for table in tables.values())
        self._turn = asyncio.Lock() if self.database == "sqlite" else None
        self._is_broken = False
        self._idle: list[_Held] = []
        self._busy: list[_Held] = []
        self._limit: int | None = None
        """As many connections as the server gave, less the one that the run's lease needs; None while it gives more."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def session(
        self, *, writes: bool = True, timeout_seconds: float | None = None, isolation: Isolation = "read_committed",
        opening: Sequence[Bound] = (), label: str = "", tenant: str | None = None,
    ) -> AsyncIterator[CoreSession]:  # fmt: skip
        """A transaction that commits when the block ends well and rolls back otherwise.

        timeout_seconds: bounds each statement in the server, too (PostgreSQL).
        opening: statements that travel with BEGIN; `session.closing` may name some that travel with COMMIT.
        label: what the server's list of activities shows. tenant: whose rows the database lets through, where it keeps
        tenants apart itself.

        A connection on which anything was cancelled or broken is closed, never used again. Raises `CommitLost` when
        nobody can say whether the transaction was committed.
        """
        async with self._turn if self._turn and writes else nullcontext():
            held = await self._take()
            session = CoreSession(held.connection, held.driver, self.tables, held.prepared)
            try:
                with self._limited(held.driver, timeout_seconds):
                    begin = self._begin(writes, timeout_seconds, isolation, label)
                    if self._is_secured:
                        begin.append(binding(tenant))
                    session.entered = await session.send([*begin, *opening])
                    yield session
            except BaseException as error:
                await self._roll_back(held, error)
                raise
            held.is_ending = True
            await _unbroken(self._commit(held, session))

    async def write(self, statements: Sequence[Bound]) -> int | None:
        """Run statements of dfrun's own in one transaction; how many rows the last one changed."""
        async with self.session(opening=statements) as session:
            return session.entered

    async def fetch(self, statement: sa.sql.base.Executable) -> list[tuple[object, ...]]:
        """The rows of one statement, in a transaction that writes nothing."""
        async with self.session(writes=False) as session:
            return await session.fetch(statement)

    @contextmanager
    def _limited(self, driver: Any, seconds: float | None) -> Iterator[None]:
        """Statements that run beyond these seconds are ended. PostgreSQL does it by itself; SQLite's thread would go
        on, and whoever is cancelled would wait for it."""
        if self.database == "postgresql" or seconds is None:
            yield
            return
        watch = asyncio.ensure_future(_interrupt_after(driver, seconds))
        try:
            yield
        finally:
            watch.cancel()

    def interrupt(self) -> None:
        """End the statements that run on SQLite, so that those who wait for them can be cancelled."""
        for held in self._busy:
            if self.database == "sqlite" and not held.is_ending:
                held.driver._conn.interrupt()

    def break_off(self) -> None:
        """Cut every connection: whatever waits for an answer of the server fails at once, and nobody says goodbye to a
        server that does not answer."""
        self._is_broken = True
        for held in (*self._busy, *self._idle):
            if self.database == "postgresql":
                held.driver.terminate()

    async def close(self) -> None:
        """Close every connection; the store can be used no more."""
        for held in list(self._idle):
            await (self._abandon(held) if self._is_broken else held.connection.close())
        self._idle.clear()
        await self.engine.dispose(close=not self._is_broken)

    def _begin(self, writes: bool, timeout_seconds: float | None, isolation: Isolation, label: str) -> list[Bound]:
        if self.database == "sqlite":
            # a read that turns into a write fails at once whatever the busy timeout, so writers say so first
            return [Bound("BEGIN IMMEDIATE" if writes else "BEGIN")]
        limit = (
            "" if timeout_seconds is None else f"; SET LOCAL statement_timeout = {max(1, int(timeout_seconds * 1000))}"
        )
        level = "" if isolation == "read_committed" else f" ISOLATION LEVEL {isolation.upper().replace('_', ' ')}"
        begin = [Bound(f"BEGIN{level}; {_GUARDS}{limit}")]
        if label:
            # SET takes a plain literal, which only harmless characters become
            shown = re.sub(r"[^A-Za-z0-9 ._/-]", "_", f"dfrun {label}")[:63]
            begin.append(Bound("SET LOCAL application_name = :shown", {"shown": shown}))
        return begin

    async def _take(self) -> _Held:
        """A connection: one that is idle, else a new one; where the server gives no more, the next that comes back."""
        while True:
            while self._idle:
                held = self._idle.pop()
                if self.database == "sqlite" or not held.driver.is_closed():
                    self._busy.append(held)
                    return held
                await held.connection.invalidate()
                await held.connection.close()
            if self._limit is None or len(self._busy) < self._limit:
                try:
                    held = await self._connect()
                except Exception as error:
                    if not self._busy or getattr(getattr(error, "orig", error), "sqlstate", None) != _TOO_MANY:
                        raise
                    self._limit = max(1, len(self._busy) - 1)
                else:
                    self._busy.append(held)
                    return held
            returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(returned)
            try:
                await returned
            except asyncio.CancelledError:
                if not returned.cancelled():
                    self._wake()  # what came back is another's now
                raise

    def _wake(self) -> None:
        """Let one who waits for a connection look again."""
        while self._waiting:
            returned = self._waiting.popleft()
            if not returned.done():
                returned.set_result(None)
                return

    async def _connect(self) -> _Held:
        connection = await self.engine.connect()
        if self.database == "postgresql":
            await connection.execution_options(isolation_level="AUTOCOMMIT")  # dfrun says BEGIN itself
        raw = await connection.get_raw_connection()
        return _Held(connection, raw.driver_connection)

    async def _commit(self, held: _Held, session: CoreSession) -> None:
        try:
            await session.send([*session.closing, Bound("COMMIT")])
        except BaseException as error:
            is_verdict = _is_verdict(error)
            await self._roll_back(held, error)
            if is_verdict:
                raise
            raise CommitLost from error
        await self._give_back(held)

    async def _give_back(self, held: _Held) -> None:
        self._busy.remove(held)
        held.is_ending = False
        if held.connection.in_transaction():
            await held.connection.rollback()  # for SQLAlchemy's own books; sends nothing
        if self._limit is not None and len(self._busy) + len(self._idle) >= self._limit:
            await held.connection.invalidate()
            await held.connection.close()
        else:
            self._idle.append(held)
        self._wake()

    async def _roll_back(self, held: _Held, error: BaseException) -> None:
        """Leave the transaction; the connection is kept only when it certainly is as good as new."""
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            await asyncio.shield(self._abandon(held))
            return
        try:
            if self.database == "sqlite":
                await held.driver.rollback()
            else:
                await held.driver.execute("ROLLBACK")
            if "InvalidCachedStatement" in f"{error!r}{error.__cause__!r}":
                raise error
        except BaseException:
            await self._abandon(held)
            return
        await self._give_back(held)

    async def _abandon(self, held: _Held) -> None:
        if held in self._busy:
            self._busy.remove(held)
        if self.database == "sqlite":
            # the statement goes on in its thread until it is told to stop
            with suppress(ValueError):  # it is closed already
                await held.driver.interrupt()
                await held.driver.rollback()
        else:
            held.driver.terminate()
        await held.connection.invalidate()
        await held.connection.close()
        self._wake()


_TOO_MANY = "53300"
_GUARDS = "; ".join(
    f"SET LOCAL {name} = {value}"
    for name, value in {
        # a process that was killed leaves no statement behind: the server looks for it once a second
        "client_connection_check_interval": 1000,
        "lock_timeout": LOCK_SECONDS * 1000,
        "idle_in_transaction_session_timeout": IDLE_SECONDS * 1000,
    }.items()
)


def _is_verdict(error: BaseException) -> bool:
    """Whether the server itself said that a COMMIT failed: then it did. A broken connection says nothing."""
    state = str(getattr(error, "sqlstate", None) or "")
    if getattr(error, "sqlite_errorname", None):
        return True
    return bool(state) and not state.startswith(("08", "57P")) and state != "40003"


async def _interrupt_after(driver: Any, seconds: float) -> None:
    """From then on, end every statement that runs."""
    await asyncio.sleep(seconds)
    while True:
        await driver.interrupt()
        await asyncio.sleep(_INTERRUPT_SECONDS)


async def _unbroken(work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work` to its end even when the waiter is cancelled, and be done then: a COMMIT that was sent is a
    COMMIT, and a step whose COMMIT landed has succeeded."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task


@asynccontextmanager
async def open_session(
    engine: AsyncEngine, tables: Mapping[str, sa.Table], tenant: str | None = None
) -> AsyncIterator[CoreSession]:
    """One transaction of its own on a database."""
    store = Store(engine, tables)
    try:
        async with store.session(tenant=tenant) as session:
            yield session
    finally:
        await store.close()
