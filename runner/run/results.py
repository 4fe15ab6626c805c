"""How steps and runs end, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Literal

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
class UndoResult:
    """What became of a step when its run was taken back: `undone`; `stays`, and why; `failed`; or `waiting` for one
    that failed.

    rows: of the database, that are as they were. kept: values among them that others had changed since, left alone.
    items: how many of a loop's are undone.
    """

    state: Literal["undone", "stays", "failed", "waiting"]
    why: str = ""
    rows: int | None = None
    kept: int = 0
    items: int | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a dry run did not do: the step, what it would have done, and how often."""

    step: str
    what: str
    times: int


@dataclass(frozen=True, slots=True)
class SlotResult:
    """What one firing of a schedule did.

    at: the slot of the run that is told with it; where nothing ran, the newest one. note: why nothing ran, or what
    else the firing found. missed: slots that nobody ran in time and this firing did not run either; `is_counted` unless
    there are more. beside: the other runs of this firing: slot, run id, state.
    """

    at: datetime
    zone: tzinfo
    note: str = ""
    missed: tuple[datetime, ...] = ()
    is_counted: bool = True
    beside: tuple[tuple[datetime, str, RunState], ...] = ()


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: its outputs by name (those that could be reached), and every step in the order of the file.

    `problem` is what befell the run itself. `bug` is an exception of dfrun's own, for the traceback file. `audit_head`
    is the end of the chain of changes as this run left it, `number:hash`; None where it changed nothing that is
    audited. `is_dry`: all of it is rolled back, and `left_out` was not done at all.
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
    undo: Mapping[str, UndoResult] = field(default_factory=dict)
    """What was taken back and what stays, the newest step first; empty for a run that was not taken back."""
    is_asked_to_undo: bool = False
    """It was taken back because its user said so, not because it failed."""
    is_dry: bool = False
    left_out: tuple[LeftOut, ...] = ()
    slot: SlotResult | None = None
    """What `--due` did; None for a run that someone started by hand."""

    @property
    def problems(self) -> list[Problem]:
        """Why the run did not succeed, then why steps failed, in the order of the file; blocked steps have nothing of
        their own to say."""
        of_steps = [r.problem for r in self.steps.values() if r.problem is not None and r.state in FAILED]
        return [self.problem, *of_steps] if self.problem else of_steps


FAILED: frozenset[StepState] = frozenset({"failed", "timed_out", "undecided"})


def undo_lines(undo: Mapping[str, UndoResult]) -> list[str]:
    """What became of each step when the run was taken back."""
    width = max(len(name) for name in undo)
    told = []
    for name, step in undo.items():
        counts = [(step.items, "item"), (step.rows, "row")]
        words = [f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in counts if n is not None]
        if step.kept:
            words.append(f"{step.kept:,} value{'' if step.kept == 1 else 's'} that others changed since stay")
        if step.state != "undone":
            words = [f"{step.state}{': ' if step.why else ''}{step.why}", *words]
        told.append(f"  {_UNDO_MARKS[step.state]} {name:<{width}}  {', '.join(words)}".rstrip())
    return told


_UNDO_MARKS = {"undone": "✓", "stays": "-", "waiting": "-", "failed": "✗"}
