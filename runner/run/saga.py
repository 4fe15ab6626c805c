"""Taking a run back: the undo of each step that is done, the last one first, each of them recorded, until all are
undone or one cannot be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from runner.errors import Problem, StepError
from runner.events import StepState
from runner.graph import GraphStep
from runner.graph.undoable import TakeBack
from runner.ledger.records import Ledger, StepKey
from runner.plan import PlannedStep
from runner.run.attempts import Attempts
from runner.run.failures import of_step
from runner.run.recorded import KEPT
from schemas.base import parse_duration
from schemas.pipeline import Retry
from schemas.types import ValueProblem

MARK = StepKey("/", "undo")
"""The record that says that the run is being taken back."""
UNDO_RETRY = Retry(max=9, max_delay=parse_duration("5s"), on=("transient", "timeout", "error", "not_found"))
Reach = Callable[[tuple[str, ...], bool, object], Awaitable[object]]
"""The value at the end of a reference, with what stands in for it."""


class Ended(Protocol):
    """A step of a run, as far as it has come."""

    planned: PlannedStep
    state: StepState | None
    value: object
    order: int


@dataclass(frozen=True, slots=True)
class Done:
    """A step to take back, and what it gave."""

    step: GraphStep
    value: object


@dataclass(slots=True)
class Saga:
    """The undo of one run. undone: the steps that are taken back; problem: why the next one could not be."""

    attempts: Attempts
    ledger: Ledger | None
    reach: Reach
    undone: list[str]
    problem: Problem | None = None

    async def take_back(self, steps: Sequence[Done]) -> None:
        """Undo the steps in this order; stops at the first that cannot be undone."""
        for done in steps:
            key = StepKey(done.step.id, "undo")
            record = self.ledger.records.get(key) if self.ledger is not None else None
            if record is None or record.status != "done":
                try:
                    await self._undo(done, key)
                except (StepError, ValueProblem) as error:
                    problem = error.problem if isinstance(error, StepError) else Problem("DF501", error.what)
                    told = of_step(done.step, problem)
                    left = ", ".join(d.step.id for d in steps if d.step.id not in self.undone)
                    why = f"not undone yet: {left}" + (f"; undone: {', '.join(self.undone)}" if self.undone else "")
                    run = self.attempts.run_id
                    fix = f"mend the cause, then dfrun resume {run}; --skip-undo {done.step.id} --reason TEXT leaves it"
                    self.problem = replace(
                        told, code="DF571", what=f"{told.what} (while it was undone)", why=why, fix=fix
                    )
                    return
            self.undone.append(done.step.id)

    async def _undo(self, done: Done, key: StepKey) -> None:
        undo = done.step.undo
        if isinstance(undo, GraphStep):
            values = [
                await self.reach(link.source, link.has_default, link.default)
                for link in undo.connections
            ]  # fmt: skip
            checked = undo.kind.check(undo.bind(values), undo.subject) if undo.connections else undo.checked
            await self.attempts.carry_out(undo, checked, key, undo.retry or UNDO_RETRY)
            return
        kept = done.value.get(KEPT) if isinstance(done.value, Mapping) else None
        kind = TakeBack()
        checked = kind.check({"effects": kept}, done.step.subject)
        step = replace(
            done.step, node="undo", kind=kind, arguments={}, checked=checked, connections=(), slots=(), when=()
        )
        await self.attempts.carry_out(step, checked, key, UNDO_RETRY)


async def mark(ledger: Ledger, failed: Problem | None) -> None:
    """Record that the run is being taken back, and why: from now on a resumed run goes on with that."""
    await ledger.record(
        MARK, {"what": failed.what if failed else "", "code": failed.code if failed else ""}, None, None
    )


def to_take_back(lives: Sequence[Ended], undoes: Sequence[str]) -> list[Done]:
    """The steps whose effect is there, or may be there, the last one first."""
    done = [
        live
        for live in lives
        if live.planned.step.id in undoes and (live.state == "succeeded" or _may_have_acted(live))
    ]
    done.sort(key=lambda live: live.order, reverse=True)
    return [Done(live.planned.step, live.value) for live in done]


def is_whole(lives: Sequence[Ended], undoes: Sequence[str]) -> bool:
    """Whether nothing that the run wrote stays once these steps are undone."""
    written = [live.planned.step for live in lives if live.state == "succeeded" and live.planned.step.phase == "main"]
    return all(step.id in undoes or not step.kind.writes for step in written)


def _may_have_acted(live: Ended) -> bool:
    """Whether nobody knows what came of a step that acts outside of the database."""
    kind = live.planned.step.kind
    return kind.writes and not kind.uses_database and live.state in ("undecided", "timed_out")
