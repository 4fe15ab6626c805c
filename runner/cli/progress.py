"""What a user sees while a run goes on: a live table on a terminal, plain lines elsewhere, events as JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from runner.events import (
    Event,
    RunFinished,
    RunNoted,
    RunStarted,
    StepFinished,
    StepLogged,
    StepProgress,
    StepRetrying,
    StepStarted,
)  # fmt: skip

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """Takes events while it is entered; all of it goes to standard error."""

    def take(self, event: Event) -> None:
        """Show what happened."""

    def note(self, text: str) -> None:
        """Show a line that is no event."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""


def choose_progress(output: str, *, quiet: bool, verbose: bool) -> Progress:
    """A live table where standard error is a terminal, else lines; JSON lines for `jsonl`; logs only when quiet."""
    if output == "jsonl":
        return JsonLines()
    if quiet or verbose or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return Lines(quiet=quiet, verbose=verbose)
    return LiveTable()


class _Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Lines(_Silent):
    """One line where something is worth one: retries, log messages, long steps every few seconds."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._last: dict[str, float] = {}

    def take(self, event: Event) -> None:
        """Print a line, or nothing."""
        if isinstance(event, RunNoted):
            _say(event.message)
        elif isinstance(event, StepLogged):
            rest = " ".join(f"{key}={value}" for key, value in event.fields.items())
            _say(f"{event.level}: {event.message}{' ' + rest if rest else ''}")
        elif self.quiet:
            return
        elif isinstance(event, StepRetrying):
            _say(f"{event.step}: {event.problem.what}; attempt {event.attempt} in {event.delay_seconds:.1f} s")
        elif isinstance(event, StepProgress):
            now = time.monotonic()
            if now - self._last.setdefault(event.step, now) >= SECONDS_BETWEEN_LINES:
                self._last[event.step] = now
                _say(f"{event.step}: {event.rows:,} rows")
        elif self.verbose and isinstance(event, StepStarted):
            _say(f"{event.step}: started")
        elif self.verbose and isinstance(event, StepFinished):
            _say(f"{event.step}: {event.state} in {event.duration_ms / 1000:.2f} s")

    def note(self, text: str) -> None:
        """Print the line."""
        _say(text)


class JsonLines(_Silent):
    """Each event as one JSON document a line on standard output; `v` is the version of their shape.

    A reader that has left does not stop the run: what it does to the data goes on to its end.
    """

    def __init__(self) -> None:
        self._has_reader = True

    def take(self, event: Event) -> None:
        """Print the event."""
        if not self._has_reader:
            return
        try:
            sys.stdout.write(json.dumps(event_record(event), ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()
        except OSError:
            self._has_reader = False

    def note(self, text: str) -> None:
        """Print the line, on standard error."""
        _say(text)


def event_record(event: Event) -> dict[str, object]:
    """An event as data: `v`, `event` and its members."""
    match event:
        case RunStarted(run_id, pipeline, steps):
            rest: dict[str, object] = {"run_id": run_id, "pipeline": pipeline, "steps": list(steps)}
            return {"v": 1, "event": "run_started"} | rest
        case RunNoted(message):
            return {"v": 1, "event": "run_noted", "message": message}
        case StepStarted(step, attempt):
            return {"v": 1, "event": "step_started", "step": step, "attempt": attempt}
        case StepProgress(step, rows):
            return {"v": 1, "event": "step_progress", "step": step, "rows": rows}
        case StepRetrying(step, attempt, delay, problem):
            rest = {"step": step, "attempt": attempt, "delay_ms": round(delay * 1000), "error": problem.what}
            return {"v": 1, "event": "step_retrying"} | rest
        case StepLogged(step, level, message, fields):
            rest = {"step": step, "level": level, "message": message, "fields": dict(fields)}
            return {"v": 1, "event": "step_logged"} | rest
        case StepFinished(step, state, attempts, count, duration, why):
            rest = {"step": step, "state": state, "attempts": attempts, "rows": count, "duration_ms": duration}
            return {"v": 1, "event": "step_finished", "error": why.what if why else None} | rest
        case RunFinished(run_id, state, duration):
            return {"v": 1, "event": "run_finished", "run_id": run_id, "state": state, "duration_ms": duration}


@dataclass(slots=True)
class _Row:
    state: str = "waiting"
    rows: int | None = None
    started: float = 0.0
    seconds: float = 0.0


class LiveTable:
    """The steps with their state, rows and rate, drawn anew a few times a second while a run takes its time."""

    MOST_STEPS = 30

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, event: Event) -> None:
        """Change the table."""
        match event:
            case RunStarted():
                from rich.console import Console
                from rich.live import Live

                self._rows = {step: _Row() for step in event.steps}
                console = Console(stderr=True)
                self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._table)
                self._live.start()
            case RunNoted(message):
                if self._live is not None:
                    self._live.console.print(message, markup=False, highlight=False)
                else:
                    _say(message)
            case StepStarted(step):
                row = self._rows.setdefault(step, _Row())
                row.state, row.started = "running", time.monotonic()
            case StepProgress(step, rows):
                self._rows.setdefault(step, _Row()).rows = rows
            case StepFinished(step, state, _, rows, duration):
                row = self._rows.setdefault(step, _Row())
                row.state, row.rows, row.seconds = state, rows, duration / 1000
            case StepLogged() | StepRetrying() if self._live is not None:
                text = event.message if isinstance(event, StepLogged) else f"{event.step}: trying again"
                self._live.console.print(harmless(text), markup=False, highlight=False)
            case _:
                pass

    def note(self, text: str) -> None:
        """Print the line above the table."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for justify in ("right", "left", "right", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        shown = list(self._rows.items())
        if len(shown) > self.MOST_STEPS:
            busy = [(name, row) for name, row in shown if row.state == "running"]
            done = sum(row.state not in ("waiting", "running") for _, row in shown)
            table.add_row("", f"{done:,} of {len(shown):,} steps", "", "", "")
            shown = busy[: self.MOST_STEPS]
        now = time.monotonic()
        for name, row in shown:
            seconds = now - row.started if row.state == "running" else row.seconds
            rate = f"{row.rows / seconds:,.0f}/s" if row.rows and seconds > 0.5 else ""
            mark, style = _STYLES.get(row.state, ("·", "dim"))
            if row.state == "running":
                mark = _FRAMES[int(now * 8) % len(_FRAMES)]
            counted = f"{row.rows:,} row{'' if row.rows == 1 else 's'}" if row.rows is not None else ""
            took = f"{seconds:.1f} s" if seconds >= 0.05 else ""
            name_style = "dim" if row.state == "waiting" else ""
            table.add_row(Text(f"  {mark}", style), Text(name, name_style), counted, Text(rate, "dim"), took)
        return table


_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_STYLES = {
    "running": ("", "cyan"), "succeeded": ("✓", "green"), "failed": ("✗", "red"), "timed_out": ("✗", "red"),
    "skipped": ("-", "yellow"), "blocked": ("-", "yellow"), "cancelled": ("-", "yellow"),
    "undecided": ("?", "red"),
}  # fmt: skip


def harmless(text: str) -> str:
    """A text that steers no terminal: what it logs may come out of a database."""
    return "".join(char if char.isprintable() or char in "\t\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _say(text: str) -> None:
    with suppress(OSError):  # nobody reads it, and the run goes on
        sys.stderr.write(harmless(text) + "\n")
