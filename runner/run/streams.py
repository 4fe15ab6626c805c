"""Rows that flow while their step goes on, and rows of a file that a resumed run reads once more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from runner.data.rows import Batch, Rows, Stream
from runner.errors import StepError
from runner.run.failures import UpstreamError


class Reading(Protocol):
    """What a stream tells the step that gives it."""

    @property
    def is_over(self) -> bool:
        """Whether the step has ended: one complete pass was seen, or a pass failed."""

    def seen(self, rows: int) -> None:
        """So many rows of a pass have been read."""

    async def ended(self, rest: Mapping[str, object]) -> None:
        """A pass is complete; `rest` are the members of the output beside the rows."""

    def broke(self, error: StepError) -> None:
        """A pass has failed."""


@dataclass(slots=True)
class Watched(Rows):
    """Streamed rows: the first complete pass over them ends their step, a pass that fails is that step's failure."""

    inner: Stream
    reading: Reading
    columns: tuple[str, ...] = ()

    async def batches(self) -> AsyncIterator[Batch]:
        """All rows, in order. Raises `UpstreamError` when the step that gives them fails."""
        seen = 0
        try:
            async for batch in self.inner.rows.batches():
                seen += len(batch.rows)
                self.reading.seen(seen)
                yield batch
        except StepError as error:
            if self.reading.is_over:
                raise
            self.reading.broke(error)
            raise UpstreamError from error
        if not self.reading.is_over:
            await self.reading.ended(self.inner.rest())


@dataclass(slots=True)
class Reopened(Rows):
    """The rows of a file that was read to its end before; opened only when someone reads them."""

    open: Callable[[], Awaitable[Rows]]
    columns: tuple[str, ...]
    count: int

    async def batches(self) -> AsyncIterator[Batch]:
        """All rows, in order. Raises `StepError` DF553 when the file has changed."""
        async for batch in (await self.open()).batches():
            yield batch
