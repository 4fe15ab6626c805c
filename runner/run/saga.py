"""Taking a run back: the undo of each step that is done, the last one first, each of them recorded, until all are
undone or one cannot be; and what stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from runner.errors import Problem, StepError
from runner.events import StepState
from runner.graph import GraphStep
from runner.graph.inside import LeftOutError
from runner.graph.loop import Loop
from runner.graph.undoable import TakeBack
from runner.ledger.records import Ledger, StepKey
from runner.plan import PlannedStep
from runner.run.attempts import Attempts
from runner.run.items import DoneItems, Part, Reach, leaves_of, recorded_parts
from runner.run.recorded import KEPT
from runner.run.results import UndoResult
from schemas.base import parse_duration
from schemas.pipeline import Retry
from schemas.types import ValueProblem

MARK = StepKey("/", "undo")
"""The record that says that the run is being taken back."""
UNDO_RETRY = Retry(max=9, max_delay=parse_duration("5s"), on=("transient", "timeout", "error", "not_found"))


class Ended(Protocol):
    """A step of a run, as far as it has come."""

    planned: PlannedStep
    state: StepState | None
    value: object
    order: int


@dataclass(frozen=True, slots=True)
class Done:
    """A step to take back, whole or for one item of `loop`: its record, how to get what it gave, and what its undo
    reaches."""

    step: GraphStep
    key: StepKey
    value: Callable[[], Awaitable[object]]
    reach: Reach
    loop: str = ""

    @property
    def undo_key(self) -> StepKey:
        """The record of its undo."""
        return replace(self.key, kind="undo")


@dataclass(slots=True)
class Saga:
    """The undo of one run. undoes: the steps that are to be taken back; told: what became of each that wrote something
    or was to be taken back, the newest first; problem: why the next one could not be undone."""

    attempts: Attempts
    ledger: Ledger | None
    reach: Reach
    undoes: Sequence[str]
    told: dict[str, UndoResult] = field(default_factory=dict)
    problem: Problem | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing stays of what the run wrote."""
        return all(result.state == "undone" for result in self.told.values())

    async def take_back(self, lives: Sequence[Ended]) -> None:
        """Undo what is done, the last first; stops at the first that cannot be undone."""
        parts = await recorded_parts(self.ledger) if self.ledger is not None else self.attempts.parts
        acted = sorted((live for live in lives if _has_acted(live)), key=lambda live: live.order, reverse=True)
        wanted = [live for live in acted if live.planned.step.id in self.undoes]
        every = [done for live in wanted for done in self._done(live, parts)]
        self.told = {}
        for number, done in enumerate(every):
            try:
                self._tell(done, await self._undone(done))
            except (StepError, ValueProblem) as error:
                problem = error.problem if isinstance(error, StepError) else Problem("DF501", error.what)
                self._stop(done, problem, every[number:])
                break
        covered = [live.planned.step.id for live in wanted]
        for live in acted:
            whole = live.planned.step
            if whole.phase != "main" or any(whole.id.startswith(f"{name}.") for name in covered):
                continue
            for step in leaves_of(whole):
                is_done = whole.id == step.id and (step.checked.parts is None or live.state == "succeeded")
                is_there = is_done or any(key.step == step.id for key in parts)
                if step.writes and is_there and not (whole.id in self.undoes and step.undo is not None):
                    self.told[step.id] = UndoResult("stays", _why_it_stays(step, live))

    def _done(self, live: Ended, parts: Mapping[StepKey, Part]) -> list[Done]:
        step = live.planned.step
        if not isinstance(step.kind, Loop):

            async def value() -> object:
                return live.value

            return [Done(step, StepKey(step.id), value, self.reach)]
        items = DoneItems(step, parts, self.reach).newest_first()
        return [Done(item.step, item.key, item.part.value, item.reach, step.id) for item in items]

    async def _undone(self, done: Done) -> UndoResult:
        """Take one back, unless that is recorded already."""
        records = self.ledger.records if self.ledger is not None else {}
        for key in (done.undo_key, StepKey(done.step.id, "undo"), StepKey(done.loop, "undo")):
            record = records.get(key)
            if record is not None and record.status == "done" and self.ledger is not None:
                value = await self.ledger.value(record)
                reason = value.get(SKIPPED) if isinstance(value, Mapping) else None
                return UndoResult("stays", f"left on purpose: {reason}") if reason else _result(value)
        return _result(await self._undo(done))

    async def _undo(self, done: Done) -> object:
        undo = done.step.undo
        if isinstance(undo, GraphStep):
            values = [await done.reach(link.source, link.has_default, link.default) for link in undo.connections]
            checked = undo.kind.check(undo.bind(values), undo.subject) if undo.connections else undo.checked
            with suppress(LeftOutError):  # a dry run has told it
                await self.attempts.carry_out(undo, checked, done.undo_key, undo.retry or UNDO_RETRY)
            return None
        value = await done.value()
        kept = value.get(KEPT) if isinstance(value, Mapping) else None
        kind = TakeBack()
        checked = kind.check({"effects": kept}, done.step.subject)
        step = replace(
            done.step, node="undo", kind=kind, arguments={}, checked=checked, connections=(), slots=(), when=()
        )
        return await self.attempts.carry_out(step, checked, done.undo_key, UNDO_RETRY)

    def _tell(self, done: Done, result: UndoResult) -> None:
        """Add what became of one; the items of a loop are told together, by the one that stays where one does."""
        name = done.step.id
        before = self.told.get(name, UndoResult("undone", items=0 if done.loop else None))
        items = None if before.items is None else before.items + (result.state == "undone")
        worse = before if before.state != "undone" else result
        rows = None if result.rows is None and before.rows is None else (before.rows or 0) + (result.rows or 0)
        self.told[name] = UndoResult(worse.state, worse.why, rows, before.kept + result.kept, items)

    def _stop(self, done: Done, problem: Problem, left: Sequence[Done]) -> None:
        """Tell what stands in the way, and what waits for it."""
        waiting = dict.fromkeys(each.step.id for each in left)
        undone = [name for name, result in self.told.items() if result.state == "undone" and name not in waiting]
        for name in waiting:
            self.told[name] = replace(self.told.get(name, UndoResult("waiting")), state="waiting", why="")
        self.told[done.step.id] = replace(self.told[done.step.id], state="failed", why=problem.what)
        why = f"not undone yet: {', '.join(waiting)}" + (f"; undone: {', '.join(undone)}" if undone else "")
        label, run = done.key.label, self.attempts.run_id
        mend = problem.fix if problem.code == "DF554" else f"mend the cause, then dfrun resume {run}"
        fix = f"{mend}; --skip-undo {label} --reason TEXT leaves it"
        what = f"{label}: {problem.what} (while it was undone)"
        self.problem = Problem("DF571", what, problem.place or done.step.place, why, fix)


SKIPPED = "skipped"
"""The member of a recorded undo that says why it was left out."""


async def mark(ledger: Ledger, failed: Problem | None, *, is_asked: bool = False) -> None:
    """Record that the run is being taken back, and why: from now on a resumed run goes on with that. is_asked: every
    step that has an undo is, because the user of the run says so."""
    why = {"what": failed.what if failed else "", "code": failed.code if failed else "", "asked": is_asked}
    await ledger.record(MARK, why, None, None)


def is_settled_by_undo(step: GraphStep, undoes: Sequence[str]) -> bool:
    """Whether a step of which nobody knows whether it acted is taken back anyway, so that nobody has to decide."""
    return step.id in undoes and all(inner.undo is not None for inner in leaves_of(step) if inner.writes)


def _result(value: object) -> UndoResult:
    """What a derived undo told of itself."""
    told = value if isinstance(value, Mapping) else {}
    rows, kept = told.get("rows"), told.get("kept")
    return UndoResult("undone", rows=rows if isinstance(rows, int) else None, kept=kept if isinstance(kept, int) else 0)


def _has_acted(live: Ended) -> bool:
    """Whether something of a step may be there: it is done, or may have acted, or some items or parts are done."""
    step = live.planned.step
    if isinstance(step.kind, Loop) or step.checked.parts is not None:
        return live.state not in ("skipped", "blocked")
    kind = step.kind
    is_unknown = kind.writes and not kind.uses_database and live.state in ("undecided", "timed_out")
    return live.state == "succeeded" or is_unknown


def _why_it_stays(step: GraphStep, live: Ended) -> str:
    if step.undo is not None:
        return "on_failure does not name it"
    if live.state in ("undecided", "timed_out") and live.planned.step is step:
        return "it has no undo, and nobody knows whether it acted"
    return "it has no undo"
