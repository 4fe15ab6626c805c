"""What a running step may use: its tables, the run's clock and log, and its name for the world outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runner.data.files import Files
from runner.events import Event, StepLogged, StepProgress

if TYPE_CHECKING:
    from runner.access import Access

Emit = Callable[[Event], None]


@dataclass(slots=True)
class StepContext:
    """One an attempt. `external_key` stays the same over attempts and resumes."""

    files: Files
    run_id: str
    step_id: str
    now: datetime
    emit: Emit
    external_key: str = ""
    audit_head: str | None = None
    rows: int | None = None
    _access: Access | None = None

    @property
    def project(self) -> Path:
        """The pipeline's folder."""
        return self.files.project

    @property
    def access(self) -> Access:
        """The tables, inside the transaction of this attempt."""
        assert self._access is not None, f"{self.step_id} uses a database its kind did not ask for"
        return self._access

    def enter(self, access: Access) -> None:
        """From now on the tables are reached by `access`."""
        self._access = access

    def progress(self, rows: int) -> None:
        """Say that `rows` rows more are done."""
        self.rows = (self.rows or 0) + rows
        self.emit(StepProgress(self.step_id, self.rows))

    def log(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        """Put a message into the run's log."""
        self.emit(StepLogged(self.step_id, level, message, fields))
