"""The scheduled pipelines of a project: which there are, how they stand, and a loop that fires each when it is due."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from runner.api import shown, yaml_files
from runner.declarations import kind_of, load_pipeline
from runner.errors import DefinitionError, Problem
from runner.loading import read
from runner.schedule.check import check_schedule
from runner.schedule.slots import Slots, slots_of
from schemas.pipeline import Schedule

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from runner.ledger.runs import RunRow

_DFRUN = (sys.executable, "-P", "-c", "from runner.cli import main; main()")
_LOOK_SECONDS = 30.0
"""How long a change of the files may go unseen."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A pipeline with a schedule."""

    file: Path
    name: str
    schedule: Schedule
    slots: Slots

    @property
    def said(self) -> str:
        """The schedule in one line."""
        return f"{self.schedule.cron}, {self.schedule.timezone}"


def find_scheduled(path: Path) -> list[Scheduled]:
    """The scheduled pipelines of a folder, or the one of a file, by file.

    Raises `DefinitionError` with the problems of all of them; DF451 for a file without a schedule.
    """
    found: list[Scheduled] = []
    problems: list[Problem] = []
    for file in yaml_files(path):
        try:
            if (scheduled := read_scheduled(file)) is not None:
                found.append(scheduled)
        except DefinitionError as error:
            problems += error.problems
    if problems:
        raise DefinitionError(problems)
    if not found and not path.is_dir():
        what = f"{shown(path)} has no schedule, so that nothing is ever due"
        fix = 'schedule: {cron: "30 2 * * *", timezone: Europe/Berlin}'
        raise DefinitionError(Problem("DF451", what, None, "", fix))
    return found


def read_scheduled(file: Path) -> Scheduled | None:
    """The pipeline of a file; None where it has no schedule. Raises `DefinitionError`."""
    document = read(file)
    if kind_of(document) != "pipeline" or "schedule" not in document.root:
        return None
    pipeline = load_pipeline(document)
    if pipeline.schedule is None:  # `schedule:` with nothing behind it
        return None
    if wrong := check_schedule(pipeline, pipeline.schedule, document):
        raise DefinitionError(wrong)
    return Scheduled(file, pipeline.name, pipeline.schedule, slots_of(pipeline.schedule))


async def latest_runs(database: str | None, environment: str | None, names: Sequence[str]) -> dict[str, RunRow]:
    """The latest run of each pipeline that has one, in the database of the project where the user stands."""
    from runner.ledger.runs import list_runs
    from runner.run.launch import open_ledger

    found: dict[str, RunRow] = {}
    async with open_ledger(database, environment) as store:
        for name in names:
            for row in await list_runs(store, name, limit=1):
                found[name] = row
    return found


@dataclass(slots=True)
class Watch:
    """Fires what is due, one process a firing, until it is told to stop.

    words: further words of each call. every_seconds: how often a pipeline is fired even if no slot has begun, so that
    what was interrupted is gone on with. say: hears of every firing that ended, and of files that are wrong.
    """

    path: Path
    words: tuple[str, ...]
    every_seconds: float
    say: Callable[[str], None]
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _fired: dict[Path, tuple[datetime, float]] = field(default_factory=dict)
    _running: dict[Path, Process] = field(default_factory=dict)
    _wrong: dict[Path, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Until `stop`; then the processes that run are asked to stop, and waited for."""
        tasks: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            now, clock = datetime.now(UTC), time.monotonic()
            wait = _LOOK_SECONDS
            for scheduled in self._found():
                last, at = self._fired.get(scheduled.file, (None, 0.0))
                newest = scheduled.slots.newest(now)
                is_due = last is None or (newest is not None and newest > last) or clock - at >= self.every_seconds
                if is_due and scheduled.file not in self._running:
                    self._fired[scheduled.file] = (now, clock)
                    process = await asyncio.create_subprocess_exec(*_DFRUN, str(scheduled.file), "--due", *self.words)
                    self._running[scheduled.file] = process
                    task = asyncio.create_task(self._see(scheduled, process))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                following = scheduled.slots.next(now)
                if following is not None:
                    wait = min(wait, (following - datetime.now(UTC)) / timedelta(seconds=1))
            try:
                async with asyncio.timeout(max(wait, 0.05)):
                    await self._stop.wait()
            except TimeoutError:
                continue
        await asyncio.gather(*tasks)

    def stop(self, number: int) -> None:
        """Begin nothing more, and pass a signal on to what runs."""
        self._stop.set()
        for process in self._running.values():
            process.send_signal(number)

    def _found(self) -> list[Scheduled]:
        """The scheduled pipelines as the files are now; one that is wrong stops no other, and is told once."""
        found = []
        for file in yaml_files(self.path):
            try:
                scheduled = read_scheduled(file)
            except DefinitionError as error:
                told = str(error)
                if self._wrong.get(file) != told:
                    self.say(told)
                self._wrong[file] = told
                continue
            self._wrong.pop(file, None)
            if scheduled is not None:
                found.append(scheduled)
        return found

    async def _see(self, scheduled: Scheduled, process: Process) -> None:
        status = await process.wait()
        del self._running[scheduled.file]
        ended = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
        self.say(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC  {scheduled.name}: {ended}")
