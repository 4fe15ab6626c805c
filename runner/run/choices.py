"""What a user asks of a run, as given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.events import Event


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a pipeline is to be run."""

    parameters: Sequence[str] = ()
    parameters_file: Path | None = None
    database: str | None = None
    environment: str | None = None
    only: Sequence[str] = ()
    run_id: str | None = None
    tenant: str | None = None
    emit: Callable[[Event], None] = field(default=lambda event: None)
    idempotency_key: str | None = None
    dry_run: bool = False
    allow_cross_tenant: bool = False
    """Statements of the pipeline's own may reach the rows of all tenants, where they say so."""
    due: bool = False
    """Run what the pipeline's schedule has due, instead of a run of its own."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a user has decided about a run that goes on. `done` and `redo` name steps whose outcome is unknown;
    `output` is what the done one gave."""

    use_current: bool = False
    done: str | None = None
    output: str | None = None
    redo: Sequence[str] = ()
    skip_undo: Sequence[str] = ()
    reason: str | None = None
    """Steps that stay as they are when the run is taken back, and why."""
