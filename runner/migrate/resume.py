"""A migration that stopped half-way: where it stands, what of it can be taken back at once, what a user is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from sqlalchemy.exc import DBAPIError, PendingRollbackError

from runner.errors import Problem, TablesError
from runner.migrate import history
from runner.migrate.apply import MigrationError, Work, drop_invalid
from runner.migrate.connection import Live
from runner.migrate.history import Migration, Recorded
from runner.migrate.plan import MigrationPlan
from runner.migrate.snapshot import Snapshot, differing

WorkOf = Callable[[Migration], Awaitable[Work]]


async def position(work: Work) -> frozenset[int]:
    """The steps that are done, by the ledger and by the tables. Raises `TablesError` DF620 when they differ."""
    live, steps = work.live, list(work.steps)
    rows = await history.step_rows(live, work.number)
    done = {number for number, row in rows.items() if row["status"] == "done"}
    for number, step in enumerate(steps, 1):
        if step.mode == "outside" and number not in done:
            await drop_invalid(live, step)
    now = await work.state()
    expected = steps[max(done) - 1].after if done else None
    migration = (await history.recorded(live)).find(work.number)
    assert migration is not None, "the row that is resumed is there"
    if now.fingerprint == (expected or migration.from_fp):
        return frozenset(done)
    following = (max(done) if done else 0) + 1
    if (
        following <= len(steps)
        and steps[following - 1].mode == "outside"
        and now.fingerprint == steps[following - 1].after
    ):
        await history.write_step(live, work.number, following, "done")
        return frozenset({*done, following})
    settled = await _settled(work)
    if settled.fingerprint == (expected or migration.from_fp):
        return frozenset(done)
    known = migration.before.merged(migration.after)
    wrong = ", ".join(f"{k} {t}.{n}" for k, t, n in list(differing(now, known))[:5])
    what = f"migration {work.number} cannot go on: the tables are as no step of it leaves them"
    raise TablesError(Problem("DF620", what, None, f"changed meanwhile: {wrong}", "dfrun migrate drift"))


async def _settled(work: Work) -> Snapshot:
    async with work.live.transaction():
        return await work.settled()


async def settle_unfinished(live: Live, recorded: Recorded, work_of: WorkOf) -> Recorded:
    """A migration that died before its first step changed nothing; any other must be ended first (DF616)."""
    row = recorded.unfinished
    if row is None:
        return recorded
    work = await work_of(row)
    rows = await history.step_rows(live, row.id)
    if not rows and (await work.state()).fingerprint == row.from_fp:
        await history.set_status(live, row.id, "undone")
        return await history.recorded(live)
    done = sum(1 for r in rows.values() if r["status"] == "done")
    what = f"migration {row.id} is not finished: {done} of {len(row.steps)} steps are done"
    fix = "dfrun migrate resume goes on with it, dfrun migrate rollback takes it back"
    raise TablesError(Problem("DF616", what, None, "", fix))


async def after_failure(work: Work, plan: MigrationPlan) -> str:
    """Take back what is done when all of it is harmless; the status that says what is left."""
    done = [plan.steps[number - 1] for number in work.progress.done]
    if not done:
        return "failed"
    if any(step.level != "LOW" or not step.undo for step in done):
        return "partial"
    try:
        for step in reversed(done):
            for sql in step.undo:
                await work.live.execute(sql)
    except DBAPIError:
        return "partial"
    return "undone"


def told(error: MigrationError, status: str, number: int) -> MigrationError:
    problem = error.problems[0]
    if status == "partial":
        fix = f"dfrun migrate resume goes on with migration {number}, dfrun migrate rollback {number} takes it back"
    elif status == "undone":
        problem = replace(problem, why="what was done before was taken back; nothing is changed")
        fix = problem.fix
    else:
        fix = problem.fix
    return type(error)(replace(problem, fix=problem.fix if problem.code == "DF615" else fix))


class _Lost(MigrationError):
    """The connection broke: going on may help."""

    exit_code = 75


@asynccontextmanager
async def told_if_lost() -> AsyncIterator[None]:
    """A connection that breaks inside is told as `MigrationError` DF617: the ledger knows where the tables stand."""
    from runner.dialects.errors import is_database_error, step_error

    try:
        yield
    except Exception as error:
        if not is_database_error(error):
            raise
        refused = step_error(error, {})
        if refused.sqlstate in ("42501", "25006", "53100"):  # rights, a server that takes no writes, a full disk
            told = refused.problem
            raise TablesError(Problem("DF621", told.what, None, "the migration could not begin", told.fix)) from error
        if not isinstance(error, PendingRollbackError) and refused.error_class != "transient":
            raise
        what = "the connection to the database was lost while the migration ran"
        why = "each transaction that was committed stays, with its steps in the ledger; the one at hand is gone"
        fix = "dfrun migrate status tells where it stands: resume what is unfinished, or apply again"
        raise _Lost(Problem("DF617", what, None, why, fix)) from error


def nothing_unfinished() -> Problem:
    return Problem("DF616", "there is no unfinished migration", None, "", "dfrun migrate status")
