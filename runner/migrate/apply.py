"""Runs the steps of a plan: on PostgreSQL in short transactions that retry for their locks, on SQLite in one.

Each transaction writes what it did into the ledger before it commits, so that after a crash the ledger and the tables
tell the same.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.exc import DBAPIError

from runner.errors import DfrunError, Problem
from runner.migrate import history, postgresql, sqltext
from runner.migrate.backfill import run_batches
from runner.migrate.connection import Live
from runner.migrate.lock import Lock
from runner.migrate.scratch import copy_statements, read, scratch
from runner.migrate.snapshot import Key, Snapshot
from runner.migrate.step import PHASES, Phase, Probe, Step, batches_of

_RETRIED = ("55P03", "40P01", "40001")


class MigrationError(DfrunError):
    """A step failed; what is told says where the database stands."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a statement waits for a lock (growing from the first to the second), how often it is tried, how long a
    brief statement may take, and how long all may take together."""

    lock_ms: tuple[int, int] = (200, 2_000)
    tries: int = 40
    brief_ms: int = 5_000
    total_seconds: float = 3_600.0


@dataclass
class Progress:
    """What a run of steps did so far."""

    done: list[int] = field(default_factory=list)
    retries: int = 0
    rows: dict[int, int] = field(default_factory=dict)


@dataclass
class Work:
    """One run over the steps of a migration.

    numbered: every step with its number. foreign: what was made by hand, which no fingerprint is about.
    tell: gets a line for each step that is done.
    """

    live: Live
    number: int
    steps: Sequence[Step]
    tables: frozenset[str]
    foreign: frozenset[Key]
    limits: Limits
    lock: Lock | None = None
    tell: Callable[[str], None] = field(default=lambda line: None)
    progress: Progress = field(default_factory=Progress)
    ends: float = field(default_factory=lambda: time.monotonic() + 3_600)

    async def run(self, done: frozenset[int] = frozenset(), until: Phase | None = None) -> bool:
        """Run what is not done yet; False when it stopped before a later phase."""
        self.progress.done = sorted(done)
        numbers = {id(step): number for number, step in enumerate(self.steps, 1)}
        for group in batches_of(list(self.steps)):
            todo = [(numbers[id(step)], step) for step in group if numbers[id(step)] not in done]
            if not todo:
                continue
            if until is not None and PHASES.index(todo[0][1].phase) > PHASES.index(until):
                return False
            if self.lock is not None:
                await self.lock.ping()
            started = time.monotonic()
            if todo[0][1].mode == "outside":
                await self._outside(*todo[0])
            elif todo[0][1].mode == "batches":
                await self._batches(*todo[0])
            else:
                await self._retried(partial(self._transaction, todo), todo[0])
            took = round((time.monotonic() - started) * 1000)
            for number, step in todo:
                self.progress.done.append(number)
                self.tell(f"{step.op} ({took} ms)")
        return True

    async def _transaction(self, todo: Sequence[tuple[int, Step]], wait_ms: int) -> None:
        is_brief = all(step.mode == "brief" for _, step in todo)
        settings = [
            f"SET LOCAL lock_timeout = {wait_ms}", "SET LOCAL timezone = 'UTC'",
            "SET LOCAL row_security = off",  # a statement that a policy would narrow fails instead
            f"SET LOCAL statement_timeout = {self.limits.brief_ms if is_brief else 0}",
        ]  # fmt: skip
        async with self.live.transaction(*settings):
            for number, step in todo:
                await self.execute(number, step)
            await history.write_done(self.live, self.number, [number for number, _ in todo])
            await self.verify(todo[-1])

    async def execute(self, number: int, step: Step) -> None:
        """The probes and the statements of one step, in the transaction at hand."""
        for probe in step.probes:
            await self._hold(number, step, probe)
        try:
            if step.is_written:
                for sql in step.sql:
                    await self.live.execute(sql)
            else:
                await self.live.script(step.sql)
        except DBAPIError as error:
            if _state(error) in _RETRIED:
                raise
            raise self.failed(number, step, error) from error

    async def _hold(self, number: int, step: Step, probe: Probe) -> None:
        found = int(await self.live.value(probe.sql))
        if found:
            why = f"step {number}, {step.op}, needs it to be none; {self.standing(number)}"
            raise _Unfit(Problem("DF607", f"{found} {probe.says}", None, why, probe.fix))

    async def verify(self, last: tuple[int, Step]) -> None:
        """Raises `MigrationError` DF618 unless the tables are what was proved for the end of this transaction."""
        number, step = last
        if not step.after or (await self.state()).fingerprint == step.after:
            return
        if self.live.database == "postgresql" and (await self.settled()).fingerprint == step.after:
            return
        what = f"after step {number}, {step.op}, the tables are not as they were proved to be"
        why = "somebody changed them meanwhile, or a trigger did"
        raise MigrationError(Problem("DF618", what, None, why, "dfrun migrate drift shows what differs"))

    async def state(self) -> Snapshot:
        """The managed tables as they are."""
        return (await read(self.live, self.tables)).visible.without(self.foreign)

    async def settled(self) -> Snapshot:
        """The same after a copy: what the server spells in two ways is spelled in one."""
        full = await read(self.live, self.tables)
        async with scratch(self.live, await copy_statements(self.live, full)) as place:
            return (await read(place)).visible.without(self.foreign)

    async def _outside(self, number: int, step: Step) -> None:
        """A step that runs in no transaction: intent, work, check, done."""
        for probe in step.probes:
            await self._hold(number, step, probe)
        await history.write_step(self.live, self.number, number, "started")
        await drop_invalid(self.live, step)

        async def work(wait_ms: int) -> None:
            await self.live.script([f"SET lock_timeout = {wait_ms}", "SET statement_timeout = 0"])
            try:
                for sql in step.sql:
                    await self.live.execute(sql)
            except DBAPIError as error:
                await self.live.script(["SET lock_timeout = 0"])
                await drop_invalid(self.live, step)
                if _state(error) in _RETRIED:
                    raise
                raise self.failed(number, step, error) from error
            finally:
                await self.live.rolled_back("RESET lock_timeout")

        await self._retried(work, (number, step))
        await history.write_step(self.live, self.number, number, "done")

    async def _batches(self, number: int, step: Step) -> None:
        assert step.batch is not None, f"{step.op} has no batch"
        rows = await history.step_rows(self.live, self.number)
        checkpoint = rows.get(number, {}).get("checkpoint")
        try:
            self.progress.rows[number] = await run_batches(self.live, self.number, number, step.batch, checkpoint)
        except DBAPIError as error:
            raise self.failed(number, step, error) from error
        await history.write_step(self.live, self.number, number, "done", rows=self.progress.rows[number])

    async def _retried(self, work: Callable[[int], Awaitable[None]], at: tuple[int, Step]) -> None:
        """Give up a lock that does not come soon, so that those who queue behind it go on, and ask again."""
        wait_ms, longest = self.limits.lock_ms
        for attempt in range(1, self.limits.tries + 1):
            try:
                await work(wait_ms)
                return
            except DBAPIError as error:
                if _state(error) not in _RETRIED:
                    raise self.failed(*at, error) from error
                if attempt == self.limits.tries or time.monotonic() > self.ends:
                    raise _Busy(await self._busy(at, attempt)) from error
            self.progress.retries += 1
            wait_ms = min(longest, round(wait_ms * 1.5))
            await asyncio.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))

    async def _busy(self, at: tuple[int, Step], attempts: int) -> Problem:
        number, step = at
        what = f"step {number}, {step.op}, got no lock on {', '.join(step.tables)} in {attempts} tries"
        blockers = await self.live.fetch(
            "SELECT DISTINCT l.pid, coalesce(nullif(a.application_name, ''), a.usename::text) FROM pg_locks l "
            "JOIN pg_stat_activity a USING (pid) WHERE l.relation IS NOT NULL AND l.pid <> pg_backend_pid() AND "
            f"l.relation = ANY (SELECT to_regclass(t) FROM unnest({_names(step.tables)}) t) LIMIT 3"
        )
        held = ", ".join(f"process {pid} ({name})" for pid, name in blockers)
        return Problem("DF615", what, None, f"held by {held}" if held else "other transactions hold it",
                       "end these transactions, then dfrun migrate resume")  # fmt: skip

    def failed(self, number: int, step: Step, error: DBAPIError) -> MigrationError:
        """What the database refused, without any row's value."""
        from runner.dialects.errors import step_error

        told = step_error(error, {}).problem
        where = self.standing(number)
        what = f"step {number}, {step.op}, failed: {told.what}"
        return MigrationError(Problem("DF617", what, None, "; ".join(t for t in (told.why, where) if t), told.fix))

    def standing(self, number: int) -> str:
        """Where the database stands when this step does not happen."""
        if self.live.database == "sqlite" or not self.progress.done:
            return "nothing was changed"
        return f"steps 1 to {max(self.progress.done)} are done, {number} to {len(self.steps)} are not"


class _Unfit(MigrationError):
    """Rows came meanwhile that the step does not allow."""

    exit_code = 3


class _Busy(MigrationError):
    """No lock came in time."""

    exit_code = 75


async def drop_invalid(live: Live, step: Step) -> None:
    """Remove what a failed CREATE INDEX CONCURRENTLY left behind: an invalid index that IF NOT EXISTS would accept."""
    for sql in step.sql:
        found = re.match(r'CREATE (?:UNIQUE )?INDEX CONCURRENTLY ("(?:[^"]|"")+"|\S+) ', sql)
        if not found:
            continue
        name = postgresql.literal(found[1])
        invalid = f"SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass({name}) AND NOT indisvalid"
        if await live.value(invalid):
            await live.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {found[1]}")


async def run_sqlite(work: Work) -> None:
    """All steps in the transaction that is open, with the checks that a rebuilt table needs."""
    live = work.live
    before = await live.fetch("PRAGMA foreign_key_check")
    for number, step in enumerate(work.steps, 1):
        counted = {t: await _count(live, t) for t in _rebuilt(step)}
        await work.execute(number, step)
        for table, rows in counted.items():
            if await _count(live, table) != rows:
                raise MigrationError(Problem("DF618", f"{table} lost rows while it was rebuilt; nothing was changed"))
        await history.write_step(live, work.number, number, "done")
        work.progress.done.append(number)
        work.tell(step.op)
    after = await live.fetch("PRAGMA foreign_key_check")
    if len(after) > len(before):
        what = f"{len(after) - len(before)} references would lead nowhere"
        raise MigrationError(Problem("DF617", what, None, "nothing was changed", "mend the rows, then migrate"))
    for table in dict.fromkeys(t for step in work.steps for t in _rebuilt(step)):
        if await live.value(f"PRAGMA integrity_check({sqltext.quoted(table)})") != "ok":
            raise MigrationError(Problem("DF618", f"{table} is damaged after its rebuild; nothing was changed"))
    if work.steps:
        await work.verify((len(work.steps), work.steps[-1]))


def _rebuilt(step: Step) -> list[str]:
    return list(step.tables) if step.op.startswith("rebuild_table ") else []


async def _count(live: Live, table: str) -> int:
    return int(await live.value(f"SELECT count(*) FROM {sqltext.quoted(table)}"))


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", "") or "")


def _names(tables: Sequence[str]) -> str:
    return "ARRAY[" + ", ".join(postgresql.literal(postgresql.quoted(t)) for t in tables) + "]::text[]"
