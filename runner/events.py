"""What can happen in a run, as a closed set of frozen records. The executor emits, others read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runner.errors import Problem

StepState = Literal["succeeded", "failed", "skipped", "blocked", "cancelled", "timed_out", "undecided"]
RunState = Literal[
    "succeeded",
    "failed",
    "interrupted",
    "timed_out",
    "cancelled",
    "needs_decision",
    "undone",
    "partly_undone",
    "undo_failed",
    "taken_over",
    "silent",
    "skipped",
]


@dataclass(frozen=True, slots=True)
class RunStarted:
    run_id: str
    pipeline: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunNoted:
    """Something about the run that its user should know: what it waits for, how it began."""

    message: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepProgress:
    """`rows`: done so far in this attempt."""

    step: str
    rows: int


@dataclass(frozen=True, slots=True)
class StepRetrying:
    step: str
    attempt: int
    delay_seconds: float
    problem: Problem


@dataclass(frozen=True, slots=True)
class StepLogged:
    step: str
    level: str
    message: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class StepFinished:
    """`rows`: rows read or written, None where that means nothing."""

    step: str
    state: StepState
    attempts: int
    rows: int | None
    duration_ms: float
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class RunFinished:
    run_id: str
    state: RunState
    duration_ms: float


Event = RunStarted | RunNoted | StepStarted | StepProgress | StepRetrying | StepLogged | StepFinished | RunFinished
