"""The runs of a database: beginning one, taking over one whose process has ended, ending one, and looking at them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, cast

import sqlalchemy as sa

from runner.dialects.bound import Bound, Value
from runner.dialects.session import CoreSession
from runner.dialects.store import Store
from runner.errors import DefinitionError, GateError, Problem
from runner.ledger.lease import Owner, is_gone, lease_seconds
from runner.ledger.records import Ledger, load_records
from runner.ledger.tables import INSTANT, ledger_tables, name, now
from schemas.pipeline import Overlap

RunStatus = Literal[
    "running", "succeeded", "failed", "interrupted", "cancelled", "needs_decision", "undone", "partly_undone",
    "undo_failed",
]  # fmt: skip
ENDED = ("succeeded", "cancelled", "undone", "partly_undone")
"""Nothing is left to do in these runs."""
_POLL_SECONDS = 0.5
_TAKEOVER_SECONDS = 20
"""How long a takeover waits for the open transactions of the process before."""
_ONE_AT_A_TIME = "two runs of one pipeline at once may do everything twice; `overlap:` says otherwise"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is kept of a run from its start: the texts it was read from and its inputs, secrets by name only."""

    run_id: str
    pipeline: str
    tenant: str
    folder: str
    definition: str
    definition_sha: str
    inputs: str
    inputs_sha: str
    scheduled_at: datetime
    idempotency_key: str | None = None
    slot: str | None = None
    trigger: str = "manual"


@dataclass(frozen=True, slots=True)
class Live:
    """Who runs a run; ages by the database's clock."""

    owner: Owner
    beat_age_seconds: float
    left_seconds: float
    is_cancelled: bool

    @property
    def is_alive(self) -> bool:
        """Whether the run may still be going on: the lease lasts, and its process is not known to be gone."""
        return self.left_seconds > 0 and not is_gone(self.owner)

    @property
    def is_quiet(self) -> bool:
        """Whether its process gave no sign of life for longer than it should: it may be gone."""
        return self.beat_age_seconds >= lease_seconds() / 3


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as the ledger has it. `status` is `interrupted` for one that nobody runs any more."""

    run_id: str
    pipeline: str
    tenant: str
    folder: str
    definition: str
    definition_sha: str
    inputs: str
    inputs_sha: str
    idempotency_key: str | None
    slot: str | None
    trigger: str
    status: RunStatus
    epoch: int
    scheduled_at: datetime
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    outputs: str | None
    summary: str | None
    live: Live | None


# --- beginning ------------------------------------------------------------------------------------------------


async def begin_run(store: Store, new: NewRun, owner: Owner, overlap: Overlap, tell: Tell) -> Ledger | RunRow:
    """Enter a run. A `RunRow` comes back when an idempotency key or a slot names a run that is there, or when `skip`
    skips.

    Raises `GateError` DF440 when another run of the pipeline goes on, `DefinitionError` DF444 (a key with other
    inputs), DF445 (a run id that is there).
    """
    way = _Way(store, overlap, tell)
    while True:
        found = await _try_begin(store, new, owner, overlap)
        if not isinstance(found, _Holder):
            return found
        if not await way.clears(found.row):
            return found.row


@dataclass(slots=True)
class _Way:
    """What `overlap` says about a run that is in the way."""

    store: Store
    overlap: Overlap
    tell: Tell
    has_told: bool = False

    async def clears(self, holder: RunRow) -> bool:
        """False when the newcomer is skipped; else it is worth another try. Raises `GateError` DF440."""
        if self.overlap == "skip":
            self.tell(_held(holder))
            return False
        if self.overlap == "refuse":
            fix = f"wait for it, or stop it: dfrun runs cancel {holder.run_id}"
            raise GateError(Problem("DF440", _held(holder), None, _ONE_AT_A_TIME, fix))
        if not self.has_told:
            is_replaced = self.overlap == "replace"
            self.tell(f"{_held(holder)}; {'it is asked to stop' if is_replaced else 'waiting for its end'}")
            self.has_told = True
            if is_replaced:
                await _ask_to_stop(self.store, holder.run_id)
        await asyncio.sleep(_POLL_SECONDS)
        return True


@dataclass(frozen=True, slots=True)
class _Holder:
    row: RunRow


async def _try_begin(store: Store, new: NewRun, owner: Owner, overlap: Overlap) -> Ledger | RunRow | _Holder:
    tables = ledger_tables(store.database)
    runs = tables["runs"]
    async with store.session(label=f"begin {new.run_id}") as session:
        await _take_turn(session, new.tenant, new.pipeline)
        if new.idempotency_key is not None:
            named = [runs.c.pipeline == new.pipeline, runs.c.tenant == new.tenant,
                     runs.c.idempotency_key == new.idempotency_key]  # fmt: skip
            for row in await _rows(session, *named):
                if row.inputs_sha != new.inputs_sha:
                    what = f"the idempotency key {new.idempotency_key!r} belongs to run {row.run_id}, with other inputs"
                    why = "a key stands for one run with one set of inputs"
                    raise DefinitionError(Problem("DF444", what, None, why, "another key, or the same inputs"))
                return row
        if new.slot is not None:
            slot = [runs.c.pipeline == new.pipeline, runs.c.tenant == new.tenant, runs.c.slot == new.slot]
            for row in await _rows(session, *slot):
                return row
        if await _rows(session, runs.c.run_id == new.run_id):
            what = f"there is a run {new.run_id!r} already"
            fix = f"another --run-id, or go on with it: dfrun resume {new.run_id}"
            raise DefinitionError(Problem("DF445", what, None, "an id names one run", fix))
        if overlap != "allow":
            holder = await _holder(session, new.tenant, new.pipeline, new.run_id)
            if holder is not None:
                return _Holder(holder)
        values = {each.name: getattr(new, each.name) for each in fields(new)}
        instant = _now(session)
        await session.execute(sa.insert(runs).values(**values, status="running", epoch=1, started_at=instant))
        await session.execute(_live_insert(session, new.run_id, owner, 1))
    return Ledger(store, new.run_id, 1)


async def _take_turn(session: CoreSession, tenant: str, pipeline: str) -> None:
    """Who comes second waits here, and sees what the first one entered."""
    if session.database == "postgresql":
        lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        await session.execute(lock, {"name": f"dfrun {tenant} {pipeline}"})


async def _holder(session: CoreSession, tenant: str, pipeline: str, but: str) -> RunRow | None:
    """Another run of the pipeline that goes on; those whose process has ended are let go."""
    await _take_turn(session, tenant, pipeline)
    runs = ledger_tables(session.database)["runs"]
    same = [runs.c.pipeline == pipeline, runs.c.tenant == tenant, runs.c.run_id != but]
    for row in await _rows(session, *same, runs.c.finished_at.is_(None)):
        if row.live is not None and row.live.is_alive:
            return row
        await _let_go(session, row)
    return None


async def _let_go(session: CoreSession, row: RunRow) -> None:
    """Mark a run that nobody runs any more; whoever still thinks so finds another epoch."""
    tables = ledger_tables(session.database)
    runs, live = tables["runs"], tables["run_live"]
    gone = {"status": "interrupted", "epoch": runs.c.epoch + 1}
    await session.execute(sa.update(runs).where(runs.c.run_id == row.run_id, runs.c.status == "running").values(**gone))
    await session.execute(sa.delete(live).where(live.c.run_id == row.run_id))


def _live_insert(session: CoreSession, run_id: str, owner: Owner, epoch: int) -> Any:
    live = ledger_tables(session.database)["run_live"]
    return sa.insert(live).values(
        run_id=run_id, owner=owner.token, host=owner.host, pid=owner.pid, pid_started=owner.started, epoch=epoch,
        beat_at=_now(session), expires_at=_now(session, lease_seconds()), cancel_requested=0,
    )  # fmt: skip


# --- taking over ------------------------------------------------------------------------------------------------


async def take_over(
    store: Store, run_id: str, owner: Owner, tell: Tell, overlap: Overlap = "refuse", *, may_be_done: bool = False
) -> tuple[RunRow, Ledger | None]:
    """Make an unfinished run this process's own; waits for the lease of an owner that gives no sign of life. No
    `Ledger` comes back when `skip` skips.

    Raises `DefinitionError` DF441 (no such run), DF442 (nothing left to do), `GateError` DF443 (someone runs it, or
    was faster, or an open transaction of the process before cannot be waited out).
    """
    row = await find_run(store, run_id)
    (check_undoable if may_be_done else check_unfinished)(row)
    way = _Way(store, overlap, tell)
    while row.live is not None and row.live.is_alive:
        owned, left = row.live.owner, row.live.left_seconds
        if owned.host == owner.host or not row.live.is_quiet:
            what = f"run {run_id} is going on: {_who(row)}"
            fix = f"wait for it, or stop it: dfrun runs cancel {run_id}"
            raise GateError(Problem("DF443", what, None, "a run has one process at a time", fix))
        tell(f"{_who(row)}; its lease ends in {left:.0f} s, waiting for that")
        await asyncio.sleep(min(left + 0.1, lease_seconds() / 3))
        row = await find_run(store, run_id)
    while True:
        found = await _seize(store, row, owner, overlap)
        if not isinstance(found, _Holder):
            return row, found
        if not await way.clears(found.row):
            return row, None


async def _seize(store: Store, row: RunRow, owner: Owner, overlap: Overlap) -> Ledger | _Holder:
    tables = ledger_tables(store.database)
    runs, live = tables["runs"], tables["run_live"]
    waited = f"run {row.run_id}: a transaction of the process before it is still open"
    try:
        async with store.session(label=f"resume {row.run_id}") as session:
            if session.database == "postgresql":
                await session.execute(sa.text(f"SET LOCAL lock_timeout = {_TAKEOVER_SECONDS * 1000}"))
            if overlap != "allow":
                holder = await _holder(session, row.tenant, row.pipeline, row.run_id)
                if holder is not None:
                    return _Holder(holder)
            mine = {"epoch": row.epoch + 1, "status": "running", "finished_at": None, "error": None, "summary": None}
            same = [runs.c.run_id == row.run_id, runs.c.epoch == row.epoch]
            if not await session.execute(sa.update(runs).where(*same).values(**mine)):
                what = f"run {row.run_id}: another process took it over first"
                raise GateError(Problem("DF443", what, None, "a run has one process at a time"))
            await session.execute(sa.delete(live).where(live.c.run_id == row.run_id))
            await session.execute(_live_insert(session, row.run_id, owner, row.epoch + 1))
    except Exception as error:
        if "55P03" not in (getattr(getattr(error, "orig", error), "sqlstate", None) or ""):
            raise
        raise GateError(Problem("DF443", waited, None, await _holders(store, row.run_id), "try again soon")) from None
    return Ledger(store, row.run_id, row.epoch + 1, await load_records(store, row.run_id))


async def _holders(store: Store, run_id: str) -> str:
    """Which server processes work for a run, since when."""
    rows = await store.fetch(
        sa.text(
            "SELECT pid, state, extract(epoch FROM clock_timestamp() - xact_start)::int FROM pg_stat_activity"
            " WHERE application_name LIKE :name AND xact_start IS NOT NULL"
        ).bindparams(name=f"dfrun {run_id}%")
    )
    told = [f"server process {pid} ({state}) since {age} s" for pid, state, age in rows]
    return "; ".join(told) or "the server does not say whose"


def check_unfinished(row: RunRow) -> None:
    """Raises `DefinitionError` DF442 when there is nothing to go on with."""
    if row.status in ENDED:
        ended = f"{row.finished_at:%Y-%m-%d %H:%M:%S} UTC" if row.finished_at else "before"
        words = {
            "succeeded": "succeeded", "undone": "failed, and is taken back",
            "partly_undone": "failed, and is taken back as far as it can be",
        }  # fmt: skip
        what = f"run {row.run_id} has {words.get(row.status, 'been cancelled')} ({ended})"
        raise DefinitionError(Problem("DF442", what, None, "there is nothing to go on with", "start a new run"))


def check_undoable(row: RunRow) -> None:
    """Raises `DefinitionError` DF442 when there is nothing to take back."""
    if row.status in ("undone", "partly_undone"):
        what = f"run {row.run_id} is taken back already"
        raise DefinitionError(Problem("DF442", what, None, "there is nothing to go on with", "start a new run"))


# --- ending -----------------------------------------------------------------------------------------------------


async def end_run(ledger: Ledger, status: RunStatus, error: str | None, outputs: str | None, summary: str) -> bool:
    """Record how a run ended, with all that waits to be recorded; False when it is another's by now."""
    database = ledger.store.database
    values: dict[str, Value] = {"run": ledger.run_id, "epoch": ledger.epoch}
    release = Bound(f"DELETE FROM {name(database, 'run_live')} WHERE run_id = :run AND epoch = :epoch", values)
    ended = Bound(
        f"UPDATE {name(database, 'runs')} SET status = :status, error = :error, outputs = :outputs,"
        f" summary = :summary, finished_at = {now(database)} WHERE run_id = :run AND epoch = :epoch",
        values | {"status": status, "error": error, "outputs": outputs, "summary": summary},
    )
    return bool(await ledger.store.write([*ledger.waiting, release, ended]))


async def retry_end(work: Callable[[], Awaitable[bool]]) -> bool:
    """`end_run`, tried again where the database is away for a moment; False when that does not help."""
    for wait in (0.2, 1.0, 3.0, None):
        try:
            return await work()
        except Exception:
            if wait is None:
                return False
            await asyncio.sleep(wait)
    return False


# --- looking, stopping, pruning -----------------------------------------------------------------------------------


async def find_run(store: Store, run_id: str) -> RunRow:
    """One run. Raises `DefinitionError` DF441."""
    async with store.session(writes=False) as session:
        rows = await _rows(session, ledger_tables(store.database)["runs"].c.run_id == run_id)
    if not rows:
        why = "the ledger of a run is in the database it ran on"
        fix = "dfrun runs list; --database or -e for another database"
        raise DefinitionError(Problem("DF441", f"there is no run {run_id!r} in this database", None, why, fix))
    return rows[0]


async def slot_runs(store: Store, pipeline: str, tenant: str) -> tuple[datetime, list[RunRow]]:
    """The database's time, and the runs of slots that decide what is due: the newest that a firing began, later ones
    that were run by hand, and all that nobody ended."""
    runs = ledger_tables(store.database)["runs"]
    async with store.session(writes=False) as session:
        found = await session.fetch(sa.select(_now(session)))
        mine = [runs.c.pipeline == pipeline, runs.c.tenant == tenant, runs.c.slot.is_not(None)]
        newest = sa.select(sa.func.max(runs.c.slot)).where(*mine, runs.c.trigger == "schedule").scalar_subquery()
        counts = sa.or_(runs.c.slot >= sa.func.coalesce(newest, ""), runs.c.status.in_(("running", "interrupted")))
        return cast("datetime", found[0][0]), await _rows(session, *mine, counts)


async def list_runs(store: Store, pipeline: str | None = None, limit: int = 50) -> list[RunRow]:
    """The latest runs, newest first."""
    runs = ledger_tables(store.database)["runs"]
    async with store.session(writes=False) as session:
        return await _rows(session, *([runs.c.pipeline == pipeline] if pipeline else []), limit=limit)


async def cancel_run(store: Store, run_id: str) -> str:
    """Stop a run: its process hears of it with its next beat; one that nobody runs is marked at once. Gives what
    was done. Raises `DefinitionError` DF442 when it has ended."""
    row = await find_run(store, run_id)
    if row.status in ENDED:
        raise DefinitionError(Problem("DF442", f"run {run_id} has ended", None, "there is nothing to stop"))
    if row.live is not None and row.live.is_alive:
        await _ask_to_stop(store, run_id)
        return f"asked run {run_id} to stop; it hears of it within {lease_seconds() / 6:.0f} s ({_who(row)})"
    tables = ledger_tables(store.database)
    runs, live = tables["runs"], tables["run_live"]
    async with store.session() as session:
        values = {"status": "cancelled", "epoch": runs.c.epoch + 1, "finished_at": _now(session)}
        await session.execute(sa.update(runs).where(runs.c.run_id == run_id).values(**values))
        await session.execute(sa.delete(live).where(live.c.run_id == run_id))
    return f"run {run_id} is cancelled; nobody was running it"


async def _ask_to_stop(store: Store, run_id: str) -> None:
    live = ledger_tables(store.database)["run_live"]
    async with store.session() as session:
        await session.execute(sa.update(live).where(live.c.run_id == run_id).values(cancel_requested=1))


async def prune_runs(store: Store, older_than_seconds: float) -> int:
    """Forget runs that began longer ago and have succeeded, failed or been cancelled; gives how many. Those that were
    interrupted or wait for a decision stay: someone may still want to go on with them. So does the newest slot of each
    schedule, which would be run once more."""
    tables = ledger_tables(store.database)
    runs = tables["runs"]
    async with store.session() as session:
        old = [runs.c.status.in_((*ENDED, "failed")), runs.c.started_at < _now(session, -older_than_seconds)]
        other = runs.alias()
        slots = sa.select(sa.func.max(other.c.slot)).where(
            other.c.pipeline == runs.c.pipeline, other.c.tenant == runs.c.tenant
        )
        fired, any_ = (
            each.correlate(runs).scalar_subquery() for each in (slots.where(other.c.trigger == "schedule"), slots)
        )
        old.append(sa.or_(runs.c.slot.is_(None), runs.c.slot < sa.func.coalesce(fired, any_)))
        gone = sa.select(runs.c.run_id).where(*old)
        for short in ("steps", "attempts", "output_chunks", "run_live"):
            await session.execute(sa.delete(tables[short]).where(tables[short].c.run_id.in_(gone)))
        return await session.execute(sa.delete(runs).where(*old))


async def attempts_of(store: Store, run_id: str) -> list[Mapping[str, object]]:
    """The failed tries of a run, in their order."""
    table = ledger_tables(store.database)["attempts"]
    columns = [c for c in table.columns if c.name != "run_id"]
    statement = sa.select(*columns).where(table.c.run_id == run_id).order_by(table.c.finished_at)
    return [dict(zip([c.name for c in columns], row, strict=True)) for row in await store.fetch(statement)]


async def _rows(session: CoreSession, *where: Any, limit: int | None = None) -> list[RunRow]:
    tables = ledger_tables(session.database)
    runs, live = tables["runs"], tables["run_live"]
    names = [each.name for each in fields(RunRow) if each.name != "live"]
    owner = [live.c.host, live.c.pid, live.c.pid_started, live.c.owner, live.c.beat_at, live.c.expires_at,
             live.c.cancel_requested, _now(session)]  # fmt: skip
    statement = (
        sa.select(*(runs.c[n] for n in names), *owner)
        .select_from(runs.outerjoin(live, live.c.run_id == runs.c.run_id))
        .where(*where).order_by(runs.c.started_at.desc(), runs.c.run_id.desc()).limit(limit)
    )  # fmt: skip
    found = []
    for row in await session.fetch(statement):
        values: dict[str, Any] = dict(zip(names, row, strict=False))
        who = _live(row[len(names) :])
        if values["status"] == "running" and (who is None or not who.is_alive):
            values["status"] = "interrupted"
        found.append(RunRow(**values, live=who))
    return found


def _live(row: tuple[object, ...]) -> Live | None:
    host, pid, started, token, beat, expires, cancelled, instant = cast(
        "tuple[str | None, int, str, str, datetime, datetime, int, datetime]", row
    )
    if host is None:
        return None
    owner = Owner(host, pid, started, token)
    return Live(owner, (instant - beat).total_seconds(), (expires - instant).total_seconds(), bool(cancelled))


def _now(session: CoreSession, more_seconds: float = 0) -> sa.ColumnElement[Any]:
    return sa.literal_column(f"({now(session.database, more_seconds)})", INSTANT)


def _held(row: RunRow) -> str:
    return f"another run of {row.pipeline!r} is going on: {row.run_id}, {_who(row)}"


def _who(row: RunRow) -> str:
    began = f"since {row.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if row.live is None:
        return began
    owner = row.live.owner
    return (
        f"process {owner.pid} on {owner.host} {began}, last sign of life {max(0, row.live.beat_age_seconds):.0f} s ago"
    )


def error_text(problem: Problem | None) -> str | None:
    """A problem as the ledger keeps it."""
    if problem is None:
        return None
    place = str(problem.place) if problem.place else None
    return json.dumps({"code": problem.code, "what": problem.what, "place": place, "why": problem.why,
                       "fix": problem.fix})  # fmt: skip
