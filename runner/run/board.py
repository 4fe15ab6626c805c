"""Where every step of a run stands: what waits for others, what may begin, how each has ended, and whom that lets go.

A ready queue by in-degree. Workers take from it and tell it how a step ended; it runs nothing itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import cast

from runner.errors import StepError, UndecidedError
from runner.events import StepFinished, StepState
from runner.graph.shapes import Phase
from runner.plan import Plan, PlannedStep, Wait
from runner.run.context import Emit
from runner.run.failures import BugError, of_step
from runner.run.results import StepResult
from runner.run.streams import Watched


@dataclass(slots=True)
class Live:
    """One step while the run goes on."""

    planned: PlannedStep
    pending: int
    verdict: StepState | None = None
    state: StepState | None = None
    value: object = None
    stream: Watched | None = None
    order: int = 0
    attempts: int = 0
    started: float = 0.0
    result: StepResult | None = None


@dataclass(slots=True)
class Board:
    """The steps of one run.

    phase: which steps may begin. is_stopped: whether none may any more. busy: how many are worked on. bug: what ended
    a step that no step should end by.
    """

    plan: Plan
    emit: Emit
    lives: dict[str, Live] = field(init=False)
    phase: Phase = "main"
    is_stopped: bool = False
    has_failed: bool = False
    is_undecided: bool = False
    bug: BaseException | None = None
    busy: int = 0
    _ready: deque[Live] = field(default_factory=deque)
    _idle: deque[asyncio.Future[None]] = field(default_factory=deque)
    _count: int = 0

    def __post_init__(self) -> None:
        self.lives = {name: Live(planned, len(planned.waits)) for name, planned in self.plan.steps.items()}

    def of_phase(self, phase: Phase) -> list[Live]:
        """The steps of a phase, in the order of the file."""
        return [live for live in self.lives.values() if live.planned.step.phase == phase]

    # --- what may begin ----------------------------------------------------------------------------------------

    def begin(self, phase: Phase) -> list[Live]:
        """Go on to a phase; its steps."""
        self.phase = phase
        lives = self.of_phase(phase)
        # what recorded steps have let go is among them already
        self._ready = deque(live for live in lives if not live.pending and live.state is None)
        return lives

    def next(self) -> Live | None:
        """A step to work on: one that is ready or, when nothing else goes on, a stream that nobody reads."""
        while self._ready:
            live = self._ready.popleft()
            if live.state is None and self._may_start(live):
                return live
        return self._drainable() if not self.busy else None

    def _may_start(self, live: Live) -> bool:
        if self.is_stopped:
            return False
        if self.phase != "main":
            return True
        # a step that asks for another's end, however it ended, is meant for just this case
        return not (self.has_failed and self.plan.fail_fast) or any(w.only_end for w in live.planned.waits)

    def _drainable(self) -> Live | None:
        lives = () if self.is_stopped or (self.has_failed and self.plan.fail_fast) else self.lives.values()
        return next((live for live in lives if live.stream and live.state is None), None)

    async def wait(self) -> None:
        """Return when there may be something to work on."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        await waiter

    def wake_all(self) -> None:
        """Let every worker that waits look again."""
        self._wake(len(self._idle))

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._idle))):
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)

    # --- how a step ended --------------------------------------------------------------------------------------

    def restore(self, live: Live, value: object, rows: int | None, order: int) -> None:
        """Settle a step that is recorded: it does not run again, and its readers get what was recorded."""
        live.value = value
        self.finish(live, "succeeded", rows, is_recorded=True)
        live.order = order
        self._count = max(self._count, order)

    def finish(
        self, live: Live, state: StepState, rows: int | None = None, error: StepError | None = None,
        *, is_recorded: bool = False,
    ) -> None:  # fmt: skip
        """Settle how a step ended and tell its readers."""
        self._settle(live, state, rows, error, is_recorded)
        queue = [live]
        while queue:
            ended = queue.pop()
            for name, wait in self.plan.readers[ended.planned.step.id]:
                reader = self.lives[name]
                if wait.is_early and ended.stream is not None:
                    continue  # it was let go when the stream opened
                if self._tell(reader, wait, cast(StepState, ended.state)):
                    queue.append(reader)
        self._wake(len(self._ready) - 1)

    def fail(self, live: Live, error: StepError, rows: int | None) -> None:
        """Settle that a step failed."""
        self.has_failed = True
        state: StepState = "timed_out" if error.error_class == "timeout" else "failed"
        if isinstance(error, UndecidedError):
            self.is_undecided, state = True, "undecided"
        if isinstance(error, BugError):
            self.bug = self.bug or error.__cause__
        self.finish(live, state, rows, error)

    def flow(self, live: Live, stream: Watched) -> None:
        """Rows of a step that goes on begin to flow: let those readers go that need nothing else."""
        live.stream = stream
        live.value = {"rows": stream}
        for name, wait in self.plan.readers[live.planned.step.id]:
            if wait.is_early:
                self._tell(self.lives[name], wait, "succeeded")
        self._wake(len(self._ready) - 1)

    def close(self) -> None:
        """Settle what has not begun when the run ends."""
        for live in self.lives.values():
            if live.state is None:
                self._settle(live, "cancelled")

    def _tell(self, reader: Live, wait: Wait, state: StepState) -> bool:
        """Count down a reader; True when this settled it without a run."""
        if state == "skipped" and wait.is_data and not wait.has_defaults:
            reader.verdict = reader.verdict or "skipped"
        elif state not in ("succeeded", "skipped") and not wait.only_end:
            reader.verdict = "blocked"
        reader.pending -= 1
        if reader.pending or reader.state is not None:
            return False
        if reader.verdict is None:
            if reader.planned.step.phase == self.phase:
                self._ready.append(reader)
            return False
        self._settle(reader, reader.verdict)
        return True

    def _settle(
        self, live: Live, state: StepState, rows: int | None = None, error: StepError | None = None,
        is_recorded: bool = False,
    ) -> None:  # fmt: skip
        live.state = state
        self._count += 1
        live.order = self._count
        elapsed = milliseconds_since(live.started) if live.started else 0.0
        problem = of_step(live.planned.step, error.problem) if error else None
        live.result = StepResult(
            state, live.attempts, rows, elapsed, problem, error.error_class if error else None,
            error.sqlstate if error else None, is_recorded,
        )  # fmt: skip
        self.emit(StepFinished(live.planned.step.id, state, live.attempts, rows, elapsed, problem))


def milliseconds_since(started: float) -> float:
    """Since `started`, a reading of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 3)
