"""How steps and runs end, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.errors import ErrorClass, Problem
from runner.events import RunState, StepState


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step ended. `rows` is None where that means nothing; `problem` says why it did not succeed;
    `is_recorded`: it had succeeded before this process took the run."""

    state: StepState
    attempts: int = 0
    rows: int | None = None
    duration_ms: float = 0.0
    problem: Problem | None = None
    error_class: ErrorClass | None = None
    sqlstate: str | None = None
    is_recorded: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: its outputs by name (those that could be reached), and every step in the order of the file.

    `problem` is what befell the run itself. `bug` is an exception of dfrun's own, for the traceback file. `audit_head`
    is the end of the chain of changes as this run left it, `number:hash`; None where it changed nothing that is
    audited.
    """

    run_id: str
    pipeline: str
    state: RunState
    outputs: Mapping[str, object]
    steps: Mapping[str, StepResult]
    duration_ms: float
    problem: Problem | None = None
    bug: BaseException | None = None
    audit_head: str | None = None

    @property
    def problems(self) -> list[Problem]:
        """Why the run did not succeed, then why steps failed, in the order of the file; blocked steps have nothing of
        their own to say."""
        of_steps = [r.problem for r in self.steps.values() if r.problem is not None and r.state in FAILED]
        return [self.problem, *of_steps] if self.problem else of_steps


FAILED: frozenset[StepState] = frozenset({"failed", "timed_out", "undecided"})
