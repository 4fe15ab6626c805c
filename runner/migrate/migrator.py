"""The acts of `dfrun migrate` on one database: plan, apply, resume, and what the ledger tells."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runner.errors import Problem, TablesError
from runner.migrate import history
from runner.migrate.apply import Limits, MigrationError, Work, run_sqlite
from runner.migrate.commandbackup import BackupCommand, file_backup, run_command
from runner.migrate.connection import Live, connect
from runner.migrate.filebackup import back_up
from runner.migrate.gate import Gate
from runner.migrate.history import Meta, Migration, Recorded
from runner.migrate.lock import held, is_held, queue
from runner.migrate.metrics import Metrics, metrics_of
from runner.migrate.plan import MigrationPlan, PlanFile
from runner.migrate.planner import Goal, build_plan, meta_after, wanted_snapshot
from runner.migrate.resume import after_failure, nothing_unfinished, position, settle_unfinished, told, told_if_lost
from runner.migrate.rollback import Rollback, Target, find_target, losses
from runner.migrate.scratch import read
from runner.migrate.snapshot import Snapshot
from runner.migrate.stale import refuse_changed, refuse_stale
from runner.migrate.state import foreign_after, read_state
from runner.migrate.status import Drift, Status
from runner.migrate.step import Backup, Phase, step_from
from runner.migrate.trash import Kept, list_kept, purge
from runner.migrate.wanted import Wanted
from runner.migrate.webhook import tell
from runner.migrate.writer import writing
from runner.migrate.written import Written

Confirm = Callable[[MigrationPlan], frozenset[str] | None]
"""Shows a plan to a human; gives the HIGH changes that were accepted by name, None for no."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an act ended. `status`: "nothing" (to do), "applied", "partial" (stopped before a phase), "declined"."""

    status: str
    plan: MigrationPlan
    migration: int | None = None
    lock_wait_ms: int = 0
    retries: int = 0
    duration_ms: int = 0
    file_backup: Path | None = None


@dataclass
class Migrator:
    """One database and what is wanted of it.

    on_step gets a line for each step that is done. keeps_tables: a table without a model stays, as a run wants it.
    backup: a command that makes a backup of its own.
    settle: makes what belongs to the tables beside them, such as triggers, in the transaction that ends an apply.
    """

    engine: AsyncEngine
    wanted: Wanted
    written: Sequence[Written] = ()
    limits: Limits = field(default_factory=Limits)
    on_step: Callable[[str], None] = field(default=lambda line: None)

    keeps_tables: bool = False
    slow_threshold_ms: int = 10_000
    max_backup_rows: int = 5_000_000
    webhook: str | None = None
    backup: BackupCommand | None = None
    settle: Callable[[AsyncConnection], Awaitable[None]] | None = None
    _found: Snapshot | None = field(default=None, init=False, repr=False)
    """What the models want of this database; it is built once."""

    async def plan(self, allow: frozenset[str] = frozenset()) -> MigrationPlan:
        """What would be done; changes nothing."""
        async with connect(self.engine) as live:
            recorded = await history.recorded(live)
            plan = await build_plan(live, await self._goal(live, recorded, allow), recorded)
            return replace(plan, blocked=(*plan.blocked, *self._too_many(plan)))

    def _too_many(self, plan: MigrationPlan) -> list[Problem]:
        """DF624 for each copy of values that would be too large."""
        found = []
        for step in plan.steps:
            for backup in step.backups:
                rows = plan.evidence.rows.get(backup.table, 0)
                if backup.kind == "shadow" and rows > self.max_backup_rows:
                    what = f"{step.op} would copy {rows} rows to keep their values, more than {self.max_backup_rows}"
                    fix = "raise migrations: {max_backup_rows} in dfrun.yaml"
                    found.append(Problem("DF624", what, None, "the copy takes room and time", fix))
        return found

    async def spent_hints(self) -> list[str]:
        """The `renamed_from` hints whose source is not in this database any more."""
        async with connect(self.engine) as live:
            full = (await read(live)).visible
        found = []
        for hint in self.wanted.hints:
            there = {
                "table": full.tables,
                "column": full.of("column", hint.table),
                "index": full.of("index", hint.table),
            }
            if hint.kind in there and not any(old in there[hint.kind] for old in hint.old):
                model = self.wanted.models.get(hint.table, hint.table)
                found.append(f"{model}{'.' if hint.name else ''}{hint.name}: renamed_from {', '.join(hint.old)}")
        return found

    async def _goal(self, live: Live, recorded: Recorded, allow: frozenset[str]) -> Goal:
        return Goal(await self._wanted(live, recorded), self.wanted, written=tuple(self.written), allow=allow,
                    keeps_tables=self.keeps_tables)  # fmt: skip

    async def _wanted(self, live: Live, recorded: Recorded) -> Snapshot:
        """What the models want; a server that takes no writes is asked what it remembers."""
        if self._found is None:
            self._found = await self._built(live, recorded)
        return self._found

    async def _built(self, live: Live, recorded: Recorded) -> Snapshot:
        if live.database == "sqlite":
            return await wanted_snapshot(live, self.wanted, recorded)
        await live.execute("BEGIN")
        try:
            return await wanted_snapshot(live, self.wanted, recorded)
        except DBAPIError as error:
            state = str(getattr(error.orig, "sqlstate", ""))
            if state not in ("25006", "42501"):
                raise
            what = "the server takes no writes" if state == "25006" else "the database user may create nothing here"
            why = "the models are compared in a schema that is rolled back, and history does not know these models"
            fix = "plan on the primary, or as a user with CREATE (or TEMPORARY) on the database"
            raise TablesError(Problem("DF621", what, None, why, fix)) from error
        finally:
            await live.rolled_back("ROLLBACK")

    async def apply(
        self, gate: Gate, *, file: PlanFile | None = None, confirm: Confirm | None = None, until: Phase | None = None,
        priority: int = 0,
    ) -> Outcome:  # fmt: skip
        """Bring the database to what is wanted.

        file: a reviewed plan; refused (DF611) when the database or the models are not as they were.
        confirm: asks a human; without one, `gate` alone decides.
        Raises `TablesError` (3), `LockError` (75), `MigrationError` (1).
        """
        allow = gate.allow | (file.allow if file else frozenset())
        plan = await self.plan(allow)
        if not plan.steps and not plan.blocked:
            await self._settled()
            return Outcome("nothing", plan)
        if file is not None:
            refuse_stale(file, plan)
        if confirm is not None and not plan.blocked:
            said = confirm(plan)
            if said is None:
                return Outcome("declined", plan)
            # HIGH changes are accepted one by one, so the level as a whole has been seen
            gate = replace(gate, allow=allow | said)
            plan = replace(plan, allow=tuple(sorted(plan.allow)))
        else:
            gate = replace(gate, allow=allow)
        gate.check(plan)
        if until is not None and plan.database == "sqlite":
            what = "a migration on SQLite is one transaction, and has no phases to stop between"
            raise TablesError(Problem("DF613", what, None, "", "leave --until out"))
        if until is not None and any(s.rank == 10 and s.risk and s.risk.compat != "LOW" for s in plan.steps):
            what = "a rename breaks code of the previous release at once, and cannot wait for a later phase"
            fix = "apply the rename first, without --until; for a model: keep_old_name: true"
            raise TablesError(Problem("DF613", what, None, "", fix))
        return await self._locked(plan, allow, "apply", until, priority)

    async def _settled(self) -> None:
        if self.settle is not None:
            async with connect(self.engine) as live, live.transaction():
                await self.settle(live.connection)

    async def _locked(
        self, shown: MigrationPlan, allow: frozenset[str], kind: str, until: Phase | None, priority: int
    ) -> Outcome:
        if shown.database == "sqlite":
            return await self._apply_sqlite(shown, lambda live, rec: self._goal(live, rec, allow), kind)
        return await self._apply_postgresql(
            shown, lambda live, rec: self._goal(live, rec, allow), kind, until, priority
        )

    async def _apply_postgresql(
        self, shown: MigrationPlan, goal_of: Any, kind: str, until: Phase | None = None, priority: int = 0,
        rolls_back: Target | None = None,
    ) -> Outcome:  # fmt: skip
        started = time.monotonic()
        async with (
            told_if_lost(),
            connect(self.engine) as live,
            held(self.engine, live.schema, self.limits.total_seconds, priority) as lock,
        ):
            await history.create(live)
            recorded = await history.recorded(live)
            if rolls_back is None:
                recorded = await settle_unfinished(live, recorded, partial(self._work_of, live, recorded))
            goal = await goal_of(live, recorded)
            plan = await build_plan(live, goal, recorded)
            if not plan.steps:
                return Outcome("nothing", plan, lock_wait_ms=lock.waited_ms)
            refuse_changed(shown, plan)
            meta = rolls_back.meta if rolls_back else meta_after(plan, goal, recorded, live)
            files = await self._files(plan)
            number = await self._begin(live, plan, kind, meta, lock.waited_ms, files)
            work = await self._work(live, number, plan, recorded, goal.wanted, goal.want)
            work.lock = lock
            outcome = await self._steps(work, plan, started, until)
            if kind == "apply":
                await self._settled()
            return replace(outcome, lock_wait_ms=lock.waited_ms)

    async def _files(self, plan: MigrationPlan, copy: Path | None = None) -> list[Backup]:
        """The backups of the whole database that there are now."""
        found = [file_backup(copy)] if copy else []
        if self.backup is not None:
            plain = self.engine.url.set(drivername=self.engine.url.get_backend_name())
            made = await run_command(self.backup, plain.render_as_string(hide_password=False), plan)
            found += [made] if made else []
        return found

    async def _begin(
        self, live: Live, plan: MigrationPlan, kind: str, meta: Meta, waited_ms: int, files: Sequence[Backup] = ()
    ) -> int:
        backups = [*files, *(backup for step in plan.steps for backup in step.backups)]
        return await history.begin(
            live, kind, plan.hash, plan.body(), plan.before, plan.after, meta, backups, lock_wait_ms=waited_ms
        )

    async def _work(
        self, live: Live, number: int, plan: MigrationPlan, recorded: Recorded, wanted: Wanted, want: Snapshot
    ) -> Work:
        state = await read_state(live, wanted, want, recorded)
        return Work(
            live, number, plan.steps, plan.before.tables | plan.after.tables, foreign_after(state, plan), self.limits,
            tell=self.on_step, ends=time.monotonic() + self.limits.total_seconds,
        )  # fmt: skip

    async def _steps(
        self, work: Work, plan: MigrationPlan, started: float, until: Phase | None, done: frozenset[int] = frozenset()
    ) -> Outcome:
        live = work.live
        try:
            is_whole = await work.run(done, until)
        except MigrationError as error:
            message = error.problems[0].what
            async with told_if_lost():
                status = await after_failure(work, plan)
                await history.finish(live, work.number, status, started, retries=work.progress.retries, error=message)
            await self._tell(status, plan, round((time.monotonic() - started) * 1000), work.number)
            raise told(error, status, work.number) from error
        status = "applied" if is_whole else "partial"
        await history.finish(live, work.number, status, started, retries=work.progress.retries)
        took = round((time.monotonic() - started) * 1000)
        await self._tell(status, plan, took, work.number)
        return Outcome(status, plan, work.number, 0, work.progress.retries, took)

    async def _apply_sqlite(
        self, shown: MigrationPlan, goal_of: Any, kind: str, rolls_back: Target | None = None
    ) -> Outcome:
        started = time.monotonic()
        async with writing(), connect(self.engine) as live:
            await history.create(live)
            await live.execute("PRAGMA foreign_keys=OFF")
            try:
                await live.execute("BEGIN IMMEDIATE")
                waited = round((time.monotonic() - started) * 1000)
                recorded = await history.recorded(live)
                goal = await goal_of(live, recorded)
                plan = await build_plan(live, goal, recorded)
                if not plan.steps:
                    await live.execute("ROLLBACK")
                    return Outcome("nothing", plan, lock_wait_ms=waited)
                refuse_changed(shown, plan)
                copy = await back_up(self.engine, plan)
                files = await self._files(plan, copy)
                meta = rolls_back.meta if rolls_back else meta_after(plan, goal, recorded, live)
                number = await self._begin(live, plan, kind, meta, waited, files)
                work = await self._work(live, number, plan, recorded, goal.wanted, goal.want)
                await run_sqlite(work)
                if self.settle is not None and kind == "apply":
                    await self.settle(live.connection)
                await history.finish(live, number, "applied", started)
                await live.execute("COMMIT")
            except BaseException as error:
                await live.rolled_back("ROLLBACK")
                if isinstance(error, MigrationError):
                    await self._write_failed(live, plan, kind, recorded, started, error)
                raise
            finally:
                await live.rolled_back("PRAGMA legacy_alter_table=OFF")
                await live.rolled_back("PRAGMA foreign_keys=ON")
        took = round((time.monotonic() - started) * 1000)
        await self._tell("applied", plan, took, number)
        return Outcome("applied", plan, number, waited, 0, took, copy)

    async def _tell(self, status: str, plan: MigrationPlan, took_ms: int, number: int) -> None:
        if self.webhook is not None:
            await tell(self.webhook, {
                "migration": number, "status": status, "plan": plan.hash, "risk": plan.level,
                "database": plan.database, "steps": len(plan.steps), "duration_ms": took_ms,
                "slow": took_ms > self.slow_threshold_ms,
            })  # fmt: skip

    async def _write_failed(
        self, live: Live, plan: MigrationPlan, kind: str, recorded: Recorded, started: float, error: MigrationError
    ) -> None:
        number = 0
        with suppress(DBAPIError):  # no room for this row, either: what went wrong is told all the same
            async with live.transaction():
                number = await self._begin(live, plan, kind, recorded.meta, 0)
                await history.finish(live, number, "failed", started, error=error.problems[0].what)
        await self._tell("failed", plan, round((time.monotonic() - started) * 1000), number)

    async def plan_rollback(self, number: int | None = None, allow: frozenset[str] = frozenset()) -> Rollback:
        """How a migration, and all after it, would be taken back, and what would be lost; changes nothing.

        number: the last one without it. Raises `TablesError` DF619 when there is none.
        """
        async with connect(self.engine) as live:
            recorded = await history.recorded(live)
            target = await find_target(live, recorded, number)
            plan = await build_plan(live, _back(target, allow), recorded)
            return Rollback(target, plan, await losses(live, plan, target))

    async def rollback(self, gate: Gate, number: int | None = None, *, confirm: Confirm | None = None) -> Outcome:
        """Take a migration back, and all after it. Raises as `apply` does."""
        found = await self.plan_rollback(number, gate.allow)
        plan, allow = found.plan, gate.allow
        if confirm is not None and not plan.blocked:
            said = confirm(plan)
            if said is None:
                return Outcome("declined", plan)
            gate = replace(gate, allow=allow | said)
        gate.check(plan)

        async def goal_of(live: Live, recorded: Recorded) -> Goal:
            return _back(await find_target(live, recorded, number), allow)

        if plan.database == "sqlite":
            return await self._apply_sqlite(plan, goal_of, "rollback", found.target)
        return await self._apply_postgresql(plan, goal_of, "rollback", rolls_back=found.target)

    async def baseline(self) -> int | None:
        """Take over the tables of the models as they are; the id of the row, None when all are known already."""
        async with connect(self.engine) as live, self._alone(live):
            recorded = await history.recorded(live)
            want = await self._wanted(live, recorded)
            state = await read_state(live, self.wanted, want, recorded)
            new = (state.full.visible.tables & want.tables) - recorded.known.tables
            if not new:
                return None
            now = recorded.known.merged(state.full.visible.only(new))
            meta = replace(recorded.meta, sources={**recorded.meta.sources, **self.wanted.sources},
                           digests={t: d for t, d in recorded.meta.digests.items() if t not in new})  # fmt: skip
            body: dict[str, object] = {"steps": [], "risk": "LOW"}
            return await history.begin(live, "baseline", "", body, recorded.known, now, meta, (), status="baseline")

    async def drift(self) -> Drift:
        """What was changed by hand, what is pending, and what is none of dfrun's business."""
        plan = await self.plan()
        async with connect(self.engine) as live:
            recorded = await history.recorded(live)
            there = (await read(live)).visible.tables
            managed = recorded.known.tables | frozenset(self.wanted.models)
            unmanaged = tuple(sorted(there - managed))
        return Drift(plan.drifted, tuple(plan.changes), unmanaged)

    async def kept(self, older_than: timedelta) -> list[Kept]:
        """What the trash has of migrations that ended longer ago than this."""
        async with connect(self.engine) as live:
            return await list_kept(live, await history.recorded(live), older_than)

    async def purge(self, older_than: timedelta) -> list[Kept]:
        """Drop that for good."""
        async with connect(self.engine) as live, self._alone(live):
            recorded = await history.recorded(live)
            kept = await list_kept(live, recorded, older_than)
            async with live.transaction(*(["SET LOCAL lock_timeout = '2s'"] if live.database == "postgresql" else [])):
                await purge(live, kept, recorded)
        return kept

    @asynccontextmanager
    async def _alone(self, live: Live) -> AsyncIterator[None]:
        """While no other migration runs, with the ledger in place."""
        async with writing():
            await history.create(live)
        if live.database == "sqlite":
            yield
            return
        async with held(self.engine, live.schema, self.limits.total_seconds):
            yield

    async def status(self) -> Status:
        """Where the database stands."""
        async with connect(self.engine) as live:
            recorded = await history.recorded(live)
            pending = await build_plan(live, await self._goal(live, recorded, frozenset()), recorded)
            row = recorded.unfinished
            rows = await history.step_rows(live, row.id) if row else {}
            done = sum(1 for r in rows.values() if r["status"] == "done")
            waiting = tuple(await queue(live))
            return Status(recorded.last, row, done, pending, await is_held(live), waiting)

    async def history(self) -> tuple[tuple[Migration, ...], Metrics]:
        """All migrations, oldest first, and what they add up to."""
        async with connect(self.engine) as live:
            found = (await history.recorded(live)).migrations
        return found, metrics_of(found, self.slow_threshold_ms)

    async def resume(self) -> Outcome:
        """Go on with a migration that was stopped, where it stopped. Raises `TablesError` DF616 when there is none."""
        started = time.monotonic()
        async with told_if_lost(), connect(self.engine) as live:
            if live.database == "sqlite":
                raise TablesError(nothing_unfinished())
            async with held(self.engine, live.schema, self.limits.total_seconds) as lock:
                recorded = await history.recorded(live)
                row = recorded.unfinished
                if row is None:
                    raise TablesError(nothing_unfinished())
                work, plan = await self._resumed(live, row, recorded)
                work.lock = lock
                done = await position(work)
                await history.set_status(live, row.id, "applying")
                return await self._steps(work, plan, started, None, done)

    async def _work_of(self, live: Live, recorded: Recorded, row: Migration) -> Work:
        return (await self._resumed(live, row, recorded))[0]

    async def _resumed(self, live: Live, row: Migration, recorded: Recorded) -> tuple[Work, MigrationPlan]:
        steps = tuple(step_from(body) for body in row.steps)
        plan = MigrationPlan(live.database, str(live.version), row.before, row.after, steps)
        work = await self._work(live, row.id, plan, recorded, self.wanted, row.after)
        return work, plan


def _back(target: Target, allow: frozenset[str]) -> Goal:
    return Goal(target.want, target.wanted, target.backups, allow=allow, is_rollback=True, undos=target.undos)
