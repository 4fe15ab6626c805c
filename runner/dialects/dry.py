"""One database as a dry run uses it: the transactions of all steps are parts of one, which is rolled back at its end.

A step that fails is taken back to its savepoint. A connection that breaks, or on which something was cancelled, ends
the dry run: what came before is gone with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.dialects.bound import Bound
from runner.dialects.row_security import binding
from runner.dialects.session import CoreSession
from runner.dialects.store import LOCK_SECONDS, Store
from runner.errors import Problem, StepError
from schemas.pipeline import Isolation

IDLE_SECONDS = 3_600
"""How long a step outside of the database may take: its locks are held meanwhile."""
_SAVEPOINT = "dfrun_step"


class DryStore(Store):
    """One connection with one open transaction. Sessions take turns, and commit nothing."""

    def __init__(self, engine: AsyncEngine, tables: Mapping[str, sa.Table]) -> None:
        super().__init__(engine, tables)
        self._part = asyncio.Lock()
        self._is_over = False

    async def begin(self) -> None:
        """Open the transaction."""
        await self._take()
        begin = "BEGIN IMMEDIATE"
        if self.database == "postgresql":
            guards = {"lock_timeout": LOCK_SECONDS, "idle_in_transaction_session_timeout": IDLE_SECONDS}
            settings = "".join(f"; SET LOCAL {name} = '{seconds}s'" for name, seconds in guards.items())
            begin = f"BEGIN{settings}; SET LOCAL client_connection_check_interval = 1000"
        await self._session().send([Bound(begin)])

    @asynccontextmanager
    async def session(
        self, *, writes: bool = True, timeout_seconds: float | None = None, isolation: Isolation = "read_committed",
        opening: Sequence[Bound] = (), label: str = "", tenant: str | None = None,
    ) -> AsyncIterator[CoreSession]:  # fmt: skip
        """A part of the transaction, which is kept when the block ends well and taken back otherwise.

        Raises `StepError` DF557 once the transaction is gone.
        """
        async with self._part:
            if self._is_over:
                what = "the transaction of the dry run is gone, with all that was in it"
                why = "the connection broke, or a statement was cut off"
                raise StepError(Problem("DF557", what, None, why, "start the dry run again"), "transient")
            session = self._session()
            try:
                with self._limited(self._busy[0].driver, timeout_seconds):
                    session.entered = await session.send([*self._opening(timeout_seconds, tenant), *opening])
                    yield session
                await session.send([*session.closing, Bound(f"RELEASE SAVEPOINT {_SAVEPOINT}")])
            except BaseException as error:
                await self._take_back(error)
                raise

    def _session(self) -> CoreSession:
        held = self._busy[0]
        return CoreSession(held.connection, held.driver, self.tables, held.prepared)

    def _opening(self, timeout_seconds: float | None, tenant: str | None) -> list[Bound]:
        opening = [Bound(f"SAVEPOINT {_SAVEPOINT}")]
        if self.database == "postgresql":
            opening.append(Bound(f"SET LOCAL statement_timeout = {int((timeout_seconds or 0) * 1000)}"))
        if self._is_secured and tenant is not None:
            # the first tenant of a transaction is its last, and what looks at the tables first has none
            opening.append(binding(tenant))
        return opening

    async def _take_back(self, error: BaseException) -> None:
        """Undo the part at hand; when that cannot be done, the whole is lost."""
        if not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            try:
                back = [f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}", f"RELEASE SAVEPOINT {_SAVEPOINT}"]
                await self._session().send([Bound(text) for text in back])
                return
            except Exception:
                pass
        self._is_over = True
        await asyncio.shield(self._abandon(self._busy[0]))

    async def close(self) -> None:
        """Roll everything back, and close the connection."""
        for held in list(self._busy):
            await self._abandon(held)
        await super().close()
