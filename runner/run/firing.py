"""`dfrun FILE --due`: what a schedule has due by the database's clock is run, each slot once, however often and on
however many hosts that is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from runner.database import open_store
from runner.errors import DefinitionError, DfrunError, GateError, Problem
from runner.ledger.runs import RunRow, find_run, slot_runs
from runner.ledger.tables import prepare_ledger
from runner.loading import Loaded
from runner.run.choices import Decisions, RunOptions
from runner.run.launch import Ready, Started, prepare, result_of, resume, start
from runner.run.results import RunResult, SlotResult
from runner.schedule.due import Due, decide
from runner.schedule.slots import Slots, slots_of
from schemas.pipeline import Schedule

_GOES_ON = frozenset({"succeeded", "failed", "undone", "partly_undone", "needs_decision", "undo_failed", "timed_out"})
"""How a run of a slot may end with the next slot still being run: its end is on record, and nobody else is at work."""


async def fire(loaded: Loaded, options: RunOptions, started: Started, since: datetime | None = None) -> RunResult:
    """Run what is due; the result is that of the first run that did not succeed, else of the last one.

    since: of a schedule that never ran, only slots after this moment are due; without it the newest is.
    Raises `DfrunError` when nothing has run.
    """
    schedule = scheduled(loaded)
    _check_options(options)
    ready = prepare(loaded, options)
    async with open_store(ready.target, {}) as store:
        await prepare_ledger(store)
        now, rows = await slot_runs(store, ready.plan.name, ready.tenant or "")
    slots = slots_of(schedule)
    return await _Firing(ready, started, slots, decide(schedule, slots, now, rows, since)).run()


def scheduled(loaded: Loaded) -> Schedule:
    """The schedule of a file. Raises `DefinitionError` DF451 where it has none."""
    if loaded.pipeline.schedule is not None:
        return loaded.pipeline.schedule
    what = f"{loaded.pipeline.name} has no schedule, so that nothing is ever due"
    fix = 'schedule: {cron: "30 2 * * *", timezone: Europe/Berlin}'
    raise DefinitionError(Problem("DF451", what, loaded.document.place(()), "", fix))


def _check_options(options: RunOptions) -> None:
    """Raises `DefinitionError` DF452 for options that mean another run than that of a slot."""
    for given, name, why, fix in (
        (options.dry_run, "--dry-run", "a dry run leaves no record, and a slot is run on record", "leave --due out"),
        (options.only, "--only", "a slot is run once, and a part of the pipeline is not its run", "leave --due out"),
        (options.run_id, "--run-id", "one firing may run several slots, or none", "leave it out"),
        (options.idempotency_key, "--idempotency-key", "the slot itself is the key of its run", "leave it out"),
    ):  # fmt: skip
        if given:
            raise DefinitionError(Problem("DF452", f"--due does not go with {name}", None, why, fix))


@dataclass(slots=True)
class _Firing:
    ready: Ready
    started: Started
    slots: Slots
    due: Due
    ended: list[tuple[datetime, RunResult]] = field(default_factory=list)

    async def run(self) -> RunResult:
        """Go on with what nobody ended, then run what is due, the oldest slot first."""
        refused: DfrunError | None = None
        for row in self.due.unfinished:
            try:
                result = await self._go_on(row)
            except DefinitionError as error:  # that run waits for someone; the slots after it do not
                refused = error
                self.ready.tell(f"run {row.run_id} of {row.slot} cannot go on: {error.problems[0].what}")
                continue
            if not self._goes_on(datetime.fromisoformat(row.slot or ""), result):
                return self._told()
        for slot in self.due.slots:
            if not self._goes_on(slot, await self._begin(slot)):
                break
        if refused is not None and not self.ended:
            raise refused
        return self._told() if self.ended else self._nothing()

    def _goes_on(self, slot: datetime, result: RunResult) -> bool:
        self.ended.append((slot, result))
        return result.state in _GOES_ON

    async def _go_on(self, row: RunRow) -> RunResult:
        ready = self.ready
        ready.tell(f"going on with run {row.run_id} of {row.slot}, which {_STOOD.get(row.status, 'stood still')}")
        try:
            return await resume(
                row.run_id, ready.options, Decisions(), self.started, ready.target, self._slot(row.slot)
            )
        except (GateError, DefinitionError) as error:
            if error.problems[0].code not in ("DF442", "DF443"):
                raise
            async with open_store(ready.target, {}) as store:
                now = await find_run(store, row.run_id)
            if now.status == "interrupted":
                raise
            return self._standing(now)  # another firing was faster

    async def _begin(self, slot: datetime) -> RunResult:
        found = await start(self.ready, self.started, self._slot(slot))
        return self._standing(found) if isinstance(found, RunRow) else found

    def _slot(self, slot: datetime | str | None) -> SlotResult:
        at = slot if isinstance(slot, datetime) else datetime.fromisoformat(slot or "")
        return SlotResult(at, self.slots.zone)

    def _standing(self, row: RunRow) -> RunResult:
        """What is told of a slot that has a run already."""
        slot = self._slot(row.slot)
        if row.status == "running":
            told = RunResult(row.run_id, row.pipeline, "skipped", {}, {}, 0.0)
            return replace(told, slot=replace(slot, note=f"run {row.run_id} of this slot is going on"))
        note = f"run {row.run_id} of this slot {_STOOD.get(row.status, row.status)} before"
        return replace(result_of(self.ready, row), slot=replace(slot, note=note))

    def _told(self) -> RunResult:
        told = next((i for i, (_, r) in enumerate(self.ended) if r.state not in ("succeeded", "skipped")), -1)
        slot, result = self.ended[told]
        others = [each for each in self.ended if each[1] is not result]
        beside = tuple((at, each.run_id, each.state) for at, each in others)
        own = result.slot or self._slot(slot)
        return replace(result, slot=self._with_missed(replace(own, beside=beside)))

    def _nothing(self) -> RunResult:
        standing = self.due.standing
        if standing is not None:
            result = self._standing(standing)
            return replace(result, slot=self._with_missed(result.slot or self._slot(standing.slot)))
        is_late = self.due.newest in self.due.missed
        note = "nothing was due: the slot was missed" if is_late else "nothing was due"
        result = RunResult("", self.ready.plan.name, "skipped", {}, {}, 0.0)
        return replace(result, slot=self._with_missed(replace(self._slot(self.due.newest), note=note)))

    def _with_missed(self, slot: SlotResult) -> SlotResult:
        return replace(slot, missed=self.due.missed, is_counted=self.due.is_counted)


_STOOD = {"interrupted": "was interrupted", "running": "gives no sign of life", "failed": "failed",
          "succeeded": "succeeded", "needs_decision": "stopped for a decision"}  # fmt: skip
