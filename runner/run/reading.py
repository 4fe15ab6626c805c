"""The step behind a stream, rows that a resumed run reads again, and what a run tells at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

from runner.data.rows import Rows, Stream
from runner.errors import Problem, StepError
from runner.events import RunState
from runner.ledger.records import Ledger, Record, StepKey
from runner.run.board import Board, Live
from runner.run.context import StepContext
from runner.run.streams import Reopened


@dataclass(slots=True)
class Reading:
    """The step behind a stream."""

    board: Board
    ledger: Ledger | None
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
        live = self.live
        assert live.stream is not None
        rows = self.context.rows or 0
        if self.ledger is not None and live.stream.inner.file is not None:
            key = StepKey(live.planned.step.id)
            await self.ledger.source_ended(key, rest, live.planned.wanted, rows)
        if live.state is None:
            live.value = {"rows": live.stream} | dict(rest)
            self.board.finish(live, "succeeded", rows=rows)

    def broke(self, error: StepError) -> None:
        self.board.fail(self.live, error, self.context.rows)


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


async def reopened(ledger: Ledger, live: Live, record: Record, attempt: Callable[[], Awaitable[object]]) -> object:
    """What a step that read a stream gave, its rows to be read again by another attempt when someone asks for them."""
    kept = cast("dict[str, dict[str, object]]", await ledger.value(record))
    fields = live.planned.step.checked.output.fields or {}
    columns = tuple((fields["rows"].fields or {}) if "rows" in fields else ())

    async def reopen() -> Rows:
        stream = await attempt()
        assert isinstance(stream, Stream)
        return stream.rows

    return {"rows": Reopened(reopen, columns, record.rows or 0)} | kept.get("rest", {})


def number_of(head: str) -> int:
    """Which link of its chain an audit head is."""
    return int(head.partition(":")[0])
