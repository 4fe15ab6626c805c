"""A step while its run goes on, the step behind a stream, and what a run tells at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from runner.data.rows import Rows, Stream
from runner.errors import Problem, StepError
from runner.events import RunState, StepState
from runner.ledger.records import Record, StepKey
from runner.plan import PlannedStep
from runner.run.context import StepContext
from runner.run.results import StepResult
from runner.run.streams import Reopened, Watched

if TYPE_CHECKING:
    from runner.run.executor import Executor


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
class Reading:
    """The step behind a stream."""

    executor: Executor
    live: Live
    context: StepContext

    @property
    def is_over(self) -> bool:
        return self.live.state is not None

    def seen(self, rows: int) -> None:
        before = self.context.rows or 0
        if self.live.state is None and rows > before:
            self.context.progress(rows - before)

    async def ended(self, rest: Mapping[str, object]) -> None:
        executor, live = self.executor, self.live
        assert live.stream is not None
        rows = self.context.rows or 0
        ledger, file = executor.ledger, live.stream.inner.file
        if ledger is not None and file is not None:
            key = StepKey(live.planned.step.id)
            await ledger.source_ended(key, rest, live.planned.wanted, rows)
        if live.state is None:
            live.value = {"rows": live.stream} | dict(rest)
            executor.finish(live, "succeeded", rows=rows)

    def broke(self, error: StepError) -> None:
        self.executor.fail(self.live, error, self.context.rows)


async def listed(value: object) -> object:
    """Rows as a list of mappings, all else as it is, at any depth of records."""
    if isinstance(value, Rows):
        return [dict(zip(value.columns, row, strict=True)) async for batch in value.batches() for row in batch.rows]
    if isinstance(value, Mapping):
        return {key: await listed(inner) for key, inner in value.items()}
    return value


def befell(state: RunState, run_id: str) -> Problem | None:
    """What happened to the run as a whole, where that is no step's failure."""
    if state == "taken_over":
        what = "another process has taken over this run; nothing that this one did after that was kept"
        return Problem("DF550", what, None, "", f"dfrun runs show {run_id}")
    if state == "silent":
        what = "the database does not answer; the run was given up here"
        return Problem("DF555", what, None, "what was committed is recorded", f"dfrun resume {run_id}")
    return None


async def reopened(executor: Executor, live: Live, record: Record) -> object:
    """What a step that read a stream gave, its rows to be read again."""
    assert executor.ledger is not None
    kept = cast("dict[str, dict[str, object]]", await executor.ledger.value(record))
    fields = live.planned.step.checked.output.fields or {}
    columns = tuple((fields["rows"].fields or {}) if "rows" in fields else ())

    async def reopen() -> Rows:
        stream = await executor.attempt(live, executor.context(live))
        assert isinstance(stream, Stream)
        return stream.rows

    return {"rows": Reopened(reopen, columns, record.rows or 0)} | kept.get("rest", {})


def number_of(head: str) -> int:
    """Which link of its chain an audit head is."""
    return int(head.partition(":")[0])
