"""Builds a plan: reads both sides, compares them on a copy without rows, orders the steps, and proves them there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import DBAPIError

from runner.errors import Problem, TablesError
from runner.migrate import recipes_postgresql, recipes_sqlite
from runner.migrate.connection import Live
from runner.migrate.difference import Change, compare
from runner.migrate.evidence import dependants, gather
from runner.migrate.history import DONE, Meta, Recorded
from runner.migrate.plan import MigrationPlan
from runner.migrate.postgresql import data_files, literal, quoted
from runner.migrate.recipes import Situation
from runner.migrate.renames import Rename, ambiguous, names_of, old_name_steps, resolve, restores, statements
from runner.migrate.rollback import restore_steps
from runner.migrate.scratch import copy_statements, read, scratch
from runner.migrate.snapshot import OWN, Key, Snapshot, canonical, differing
from runner.migrate.state import State, read_state
from runner.migrate.step import PHASES, Backup, Step, batches_of, grouped
from runner.migrate.wanted import Hint, Wanted
from runner.migrate.written import Written, written_steps
from schemas.names import cut

_PLANNING = ("SET LOCAL lock_timeout = '2s'", "SET LOCAL timezone = 'UTC'")


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a plan leads: a state, and how names and values get there.

    backups: what may come back from the trash. keeps_tables: no table is taken for dropped. undos: steps that come
    before all others.
    """

    want: Snapshot
    wanted: Wanted
    backups: tuple[Backup, ...] = ()
    written: tuple[Written, ...] = ()
    allow: frozenset[str] = frozenset()
    is_rollback: bool = False
    keeps_tables: bool = False
    undos: tuple[Step, ...] = ()


async def wanted_snapshot(live: Live, wanted: Wanted, recorded: Recorded) -> Snapshot:
    """What the models want, as this database spells it; a table that history does not remember as it is wanted now is
    built in a scratch place."""
    last, wants, kept = recorded.last, digests_of(live, wanted), Snapshot()
    if last is not None and last.status in DONE:
        kept = last.after.only({table for table, digest in wants.items() if last.meta.digests.get(table) == digest})
    unknown = wants.keys() - kept.tables
    if not unknown:
        return kept
    async with scratch(live, wanted.statements(unknown)) as place:
        return kept.merged((await read(place)).only(unknown))


def digests_of(live: Live, wanted: Wanted) -> dict[str, str]:
    """Names what is wanted of each table, for this server and this dfrun."""
    from runner import __version__

    here = f"{live.database} {live.version} {__version__}"
    return {t: hashlib.sha256(f"{digest} {here}".encode()).hexdigest()[:16] for t, digest in wanted.digests.items()}


async def build_plan(live: Live, goal: Goal, recorded: Recorded) -> MigrationPlan:
    """The plan from the database as it is to the goal; an empty one where nothing is to do."""
    async with _planning(live):
        state = await read_state(live, goal.wanted, goal.want, recorded)
        return await _plan(live, goal, recorded, state)


@asynccontextmanager
async def _planning(live: Live) -> AsyncIterator[None]:
    """A transaction that is rolled back, whatever happens in it."""
    if live.database == "sqlite":
        yield
        return
    await live.execute("BEGIN")
    try:
        await live.script(_PLANNING)
        yield
    finally:
        await live.rolled_back("ROLLBACK")


async def _plan(live: Live, goal: Goal, recorded: Recorded, state: State) -> MigrationPlan:
    state = replace(state, foreign=state.foreign - frozenset(_reverted(state.foreign, goal.allow)))
    have, want = state.managed, _target(goal, state.managed, recorded)
    problems: list[Problem] = []
    renames, unusable = resolve(goal.wanted.hints, have, want, frozenset(recorded.meta.hints))
    renames = [*restores(goal.backups, state.full, want), *renames]
    problems += unusable
    problems += _unadopted(have, want, recorded)
    server = str(live.version)
    drifted = tuple(_drifted(state, recorded))
    pending = [w for w in goal.written if w.name not in recorded.meta.written]
    problems += _edited(goal, recorded)
    plain = MigrationPlan(live.database, server, have, want, (), tuple(goal.allow), tuple(problems), drifted)
    has_values = any(b.kind == "shadow" and b.kept in state.full.tables for b in goal.backups)
    if have.items == want.items and not (renames or pending or goal.undos or has_values):
        return plain
    return await _Work(live, goal, recorded, state, want, renames, pending, plain).plan()


def _reverted(foreign: Iterable[Key], allow: frozenset[str]) -> Iterable[Key]:
    """What was made by hand and may go, because the user says so by name."""
    words = {"column": ["column"], "index": ["index"], "constraint": ["check", "foreign_key", "unique"]}
    for kind, table, name in foreign:
        if any(f"drop_{word}:{table}.{name}" in allow for word in words.get(kind, ())):
            yield kind, table, name


def _edited(goal: Goal, recorded: Recorded) -> list[Problem]:
    """DF623 for each hand-written file that is not the one that was carried out here."""
    found = []
    for written in goal.written:
        known = recorded.meta.written.get(written.name)
        if known is not None and known != written.digest:
            why = "it was carried out as it was then, and is carried out once"
            what = f"the hand-written migration {written.name!r} was edited after it was applied"
            found.append(Problem("DF623", what, None, why, "put the file back, and write the change into a new one"))
    return found


def _target(goal: Goal, have: Snapshot, recorded: Recorded) -> Snapshot:
    """The wanted state, with the tables of other files of models as they are."""
    if goal.is_rollback:
        return goal.want
    sources = recorded.meta.sources
    others = {
        table for table in have.tables - goal.want.tables
        if table not in _hinted(goal.wanted.hints)
        and (goal.keeps_tables or sources.get(table, "") not in goal.wanted.read | {""})
    }  # fmt: skip
    return goal.want.merged(have.only(others))


def _hinted(hints: Sequence[Hint]) -> set[str]:
    return {old for hint in hints if hint.kind == "table" for old in hint.old}


def _unadopted(have: Snapshot, want: Snapshot, recorded: Recorded) -> list[Problem]:
    """DF606 for each table that stands in the models, was made by somebody else, and is not as they say."""
    found = []
    for table in sorted((have.tables & want.tables) - recorded.known.tables):
        missing = [k for k in differing(have.only({table}), want.only({table})) if k in want.items]
        if missing:
            why = "dfrun changes only tables that it made or took over; this one differs from its model"
            fix = "dfrun migrate baseline takes it over as it is; the next plan shows what differs"
            found.append(Problem("DF606", f"the table {table!r} was not made by dfrun", None, why, fix))
    return found


def _drifted(state: State, recorded: Recorded) -> Iterable[str]:
    known = recorded.known
    if recorded.last is None or recorded.unfinished:
        return
    for key in differing(known, state.full.visible.only(known.tables)):
        kind, table, name = key
        if name.startswith(OWN):
            continue
        was, now = known.items.get(key), state.full.items.get(key)
        word = "added" if was is None else "gone" if now is None else "changed"
        yield f"{kind} {table}{'.' if name else ''}{name}: {word} by hand"


@dataclass
class _Work:
    """The making of one plan that has something to do."""

    live: Live
    goal: Goal
    recorded: Recorded
    state: State
    want: Snapshot
    renames: list[Rename]
    written: list[Written]
    plain: MigrationPlan
    problems: list[Problem] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    rest: Snapshot = field(default_factory=Snapshot)
    steps: list[Step] = field(default_factory=list)

    async def plan(self) -> MigrationPlan:
        """The plan, proved; or the reasons why there is none that can run."""
        started = time.perf_counter()
        if self._only_creates():
            return await self._created(started)
        near = self._near()
        self.rest = Snapshot() if near is None else self.state.managed.only(self.state.managed.tables - near)
        there = self.state.full if near is None else self.state.full.only(self.state.full.tables - self.rest.tables)
        copy = await copy_statements(self.live, there)
        try:
            async with scratch(self.live, copy) as place:
                await self._prepare(place)
                await self._recipes(place)
                if not self._is_stuck:
                    await self._prove(place)
        except _Refused as refused:
            self.problems.append(refused.problem)
        return await self._planned(started)

    def _only_creates(self) -> bool:
        """Whether all that is to do on PostgreSQL is to create tables, by the very statements that built the wanted
        side: they need no second proof."""
        if self.live.database == "sqlite" or self.goal.is_rollback or self.renames or self.written or self.goal.undos:
            return False
        new = (self.want.tables - self.state.managed.tables) & self.goal.wanted.tables.keys()
        return all(table in new for _, table, _ in differing(self.state.managed, self.want))

    async def _created(self, started: float) -> MigrationPlan:
        """The plan that creates tables alone."""
        situation = self._situation(self.state.full, self.state.managed)
        steps = grouped(recipes_postgresql.steps_for(compare(situation.have, self.want), situation))
        self.steps = [replace(step, after=self.want.fingerprint) for step in steps]
        return await self._planned(started)

    async def _planned(self, started: float) -> MigrationPlan:
        took = f"{self.live.database} {self.plain.server}, {(time.perf_counter() - started) * 1000:.0f} ms"
        evidence, unfit = await gather(self.live, self.steps, took if not self.problems else "")
        problems = (*self.plain.blocked, *self.problems, *unfit)
        return replace(
            self.plain, steps=tuple(self.steps), blocked=problems, evidence=evidence,
            written=tuple((w.name, w.digest) for w in self.written),
            hints=(*(r.hint for r in self.renames if r.op.startswith("rename_")), *self.values),
            notes=tuple(self._notes()),
        )  # fmt: skip

    def _near(self) -> frozenset[str] | None:
        """The tables that differ, and those that references tie to them: all that has to be copied on PostgreSQL. None
        where statements by hand may touch any."""
        if self.written or self.goal.undos or self.live.database == "sqlite":
            return None
        have, want = self.state.managed, self.want
        near = {key[1] for key in differing(have, want)} | {b.table for b in self.goal.backups}
        near |= {name for r in self.renames if r.op.endswith("_table") for name in (r.old, r.new)}
        ties = [(key[1], f["target"]) for s in (have, want) for key, f in s.items.items() if f.get("kind") == "f"]
        tied = {table for pair in ties if near & set(pair) for table in pair}
        return frozenset(near | tied)

    def _with_view(self, rename: Rename, sql: list[str], undo: list[str]) -> tuple[list[str], list[str]]:
        """A rename with the view that it leaves; on the way back, with the view that is in its way."""
        if rename in self._kept:
            view, table = quoted(rename.old), quoted(rename.new)
            return [*sql, f"CREATE VIEW {view} AS SELECT * FROM {table}"], [f"DROP VIEW IF EXISTS {view}", *undo]
        if self.goal.is_rollback and rename.op == "rename_table" and rename.new in self.goal.wanted.views:
            return [f"DROP VIEW IF EXISTS {quoted(rename.new)}", *sql], undo
        return sql, undo

    @property
    def _kept(self) -> list[Rename]:
        """The renames that leave a view under the old name."""
        names = frozenset() if self.goal.is_rollback else self.goal.wanted.views
        return [r for r in self.renames if r.op == "rename_table" and r.new in names and r.old not in self.want.tables]

    @property
    def _is_stuck(self) -> bool:
        return bool(self.plain.blocked or self.problems)

    def _notes(self) -> Iterable[str]:
        if any(step.mode == "outside" for step in self.steps):
            yield "CONCURRENTLY was proved as a plain build"
        if self.live.database == "postgresql":
            yield "proved without rows, and without triggers, row level security, grants, partitions and publications"

    async def _prepare(self, place: Live) -> None:
        """Renames and hand-written steps: the copy carries them out, so that the comparison sees their result."""
        situation = self._situation(self.state.full, self.state.managed)
        for undo_step in self.goal.undos:
            await self._carry_out(place, undo_step)
        for rename, sql, undo in statements(self.renames, self.live.database):
            sql, undo = self._with_view(rename, sql, undo)
            rule = "rename_table_kept" if rename in self._kept else rename.op
            step = situation.step(rename.change, rule, "expand", 10, "brief", sql, undo)
            old = {rename.old: "AEL"} if rename.op.endswith("_table") else step.locks
            await self._carry_out(place, replace(step, locks=dict(old)))
        for written in self.written:
            for step in written_steps(written, self._renamed_situation(await self._read(place))):
                await self._carry_out(place, step)

    async def _carry_out(self, place: Live, step: Step) -> None:
        self.steps.append(step)
        await self._try(place, step)
        self.prepared.append(self._managed(await self._read(place)).fingerprint)

    async def _read(self, place: Live) -> Snapshot:
        return await read(place, None if place.database == "postgresql" else self._tables())

    def _tables(self) -> frozenset[str]:
        new = {r.new for r in self.renames if r.op.endswith("_table")}
        return frozenset(self.state.full.tables | self.want.tables | new)

    def _managed(self, full: Snapshot) -> Snapshot:
        new = {r.old: r.new for r in self.renames if r.op.endswith("_table")}
        foreign = {(kind, new.get(table, table), name) for kind, table, name in self.state.foreign}
        return self.rest.merged(full.visible.without(foreign))

    def _situation(self, full: Snapshot, have: Snapshot) -> Situation:
        names = names_of(self.renames)
        key = hashlib.sha256(f"{self.plain.before.fingerprint} {self.want.fingerprint}".encode()).hexdigest()[:8]
        extra = full.without(have.items.keys())
        return Situation(
            self.live.database, self.live.version, self.state.full, have, self.want, names, self.goal.wanted, key,
            self.state.attached, extra,
        )  # fmt: skip

    def _renamed_situation(self, full: Snapshot) -> Situation:
        return self._situation(full, self._managed(full))

    async def _recipes(self, place: Live) -> None:
        full = await self._read(place)
        situation = self._renamed_situation(full)
        changes = [*compare(self._broken(situation.have), self.want), *self._values(situation.have)]
        if not self.goal.is_rollback:
            removed = self.goal.wanted.removed.union(*(w.removed for w in self.goal.written))
            self.problems += ambiguous(changes, removed, self.goal.allow, self.goal.wanted.models)
        self.problems += self._forbidden(changes)
        self.problems += await dependants(self.live, changes, self.state.attached, situation.names)
        shelf = recipes_sqlite if self.live.database == "sqlite" else recipes_postgresql
        own = [*shelf.steps_for(changes, situation), *old_name_steps(self._kept, situation)]
        if self.goal.is_rollback:
            own += restore_steps(self.goal.backups, changes, situation)
        own.sort(key=lambda step: (PHASES.index(step.phase), step.rank))
        self.steps = grouped([*self.steps, *own]) if self.live.database == "postgresql" else [
            replace(step, group="group-1") for step in [*self.steps, *own]
        ]  # fmt: skip

    def _broken(self, have: Snapshot) -> Snapshot:
        """The state of the copy, with indexes as invalid as they are in the database itself."""
        invalid = {k: f for k, f in self.state.full.items.items() if k[0] == "index" and f.get("valid") == "no"}
        return have.merged(Snapshot({k: {**have.items[k], "valid": "no"} for k in invalid if k in have.items}))

    def _values(self, have: Snapshot) -> list[Change]:
        """Renamed values of enums whose rule still has the old one."""
        found = []
        for hint in self.goal.wanted.hints:
            rule = have.items.get(("constraint", hint.table, cut(f"ck_values_{hint.table}_{hint.name}")))
            if hint.kind != "value" or rule is None or literal(hint.old[0]) not in rule["definition"]:
                continue
            if literal(hint.value) not in rule["definition"]:
                before, after = {"value": hint.old[0]}, {"value": hint.value}
                self.values.append(canonical(["rename_value", hint.table, hint.name, hint.value, hint.old[0]]))
                found.append(Change("rename_value", hint.table, hint.name, before, after))
        return found

    def _forbidden(self, changes: Sequence[Change]) -> list[Problem]:
        found = []
        for change in changes:
            if change.op in ("drop_column", "drop_table") and self.goal.wanted.on_drop.get(change.table) == "forbid":
                what = f"{change.subject} would be dropped, and its model says on_drop: forbid"
                found.append(Problem("DF609", what, None, "", "keep the field, or change on_drop"))
        return found

    async def _prove(self, place: Live) -> None:
        """Run every step on the copy; note the state after each transaction; the last one must be what is wanted."""
        state, files = await self._read(place), await data_files(place)
        proved: list[Step] = []
        for group in batches_of(self.steps):
            todo = group[max(0, len(self.prepared) - len(proved)) :]
            for step in todo:
                await self._try(place, step)
            rewritten: set[str] = set()
            if todo:
                state, before, files = await self._read(place), files, await data_files(place)
                rewritten = {table for key, (table, file) in files.items() if before.get(key, (table, file))[1] != file}
            last = len(proved) + len(group) - 1
            after = self._managed(state).fingerprint if todo else self.prepared[last]
            proved += [replace(s, after=after, rewrites=tuple(sorted(rewritten & {*s.tables}))) for s in group]
        self.steps = proved
        found = self._managed(state)
        wrong = [f"{kind} {table}.{name}" for kind, table, name in differing(found, self.want)]
        if wrong:
            why = f"after all steps these still differ: {', '.join(wrong[:5])}"
            raise _Refused(Problem("DF610", "the plan does not lead to what the models say", None, why,
                                   "please report this with the models before and after"))  # fmt: skip

    async def _try(self, place: Live, step: Step) -> None:
        for sql in step.sql:
            try:
                await place.execute(sql.replace(" CONCURRENTLY", "") if step.mode == "outside" else sql)
            except DBAPIError as error:
                said = str(getattr(error.orig, "args", [""])[0]).partition(": ")[2] or str(error.orig)
                if step.is_written:
                    what = f"{step.op}: the database refuses this statement"
                else:
                    what = f"{step.op} cannot be done"
                raise _Refused(Problem("DF610", what, None, f"on a copy without rows: {said}",
                                       "change what depends on it first")) from error  # fmt: skip


class _Refused(Exception):
    """A step that does not run on the copy."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def meta_after(plan: MigrationPlan, goal: Goal, recorded: Recorded, live: Live) -> Meta:
    """What history remembers once the plan is applied."""
    meta = recorded.meta
    sources = {t: s for t, s in {**meta.sources, **goal.wanted.sources}.items() if t in plan.after.tables}
    digests = {t: d for t, d in {**meta.digests, **digests_of(live, goal.wanted)}.items() if t in plan.after.tables}
    return Meta(
        sources, tuple(dict.fromkeys((*meta.hints, *plan.hints))), {**meta.written, **dict(plan.written)}, digests
    )


def refuse_blocked(plan: MigrationPlan) -> None:
    """Raises `TablesError` with every reason why the plan cannot run."""
    if plan.blocked:
        raise TablesError(plan.blocked)
