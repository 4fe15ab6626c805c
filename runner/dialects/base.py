"""What a step may ask of its database: one transaction on one connection. Each database keeps this promise in a file of
its own beside this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from runner.rows import Batch
from schemas.shapes import ModelShape

if TYPE_CHECKING:
    from sqlalchemy.sql.base import Executable

Conflict = Literal["error", "skip", "upsert"]
Reject = Callable[[int | None, tuple[object, ...], str], None]
"""Takes the line, the row and the reason of a row that was left out."""


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of the rows of a bulk write; `ids` is empty unless they were asked for."""

    created: int = 0
    updated: int = 0
    skipped: int = 0
    ids: Sequence[object] = ()


class Session(Protocol):
    """One transaction. It commits when its block ends well and rolls back otherwise."""

    async def fetch(self, statement: Executable) -> list[tuple[object, ...]]:
        """All rows, each value in its Python type."""
        ...

    def stream(self, statement: Executable, rows_per_batch: int = 5_000) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows in batches from a cursor of the server; memory stays bounded."""
        ...

    async def execute(self, statement: Executable) -> int:
        """How many rows the statement changed."""
        ...

    async def bulk_insert(
        self,
        model: ModelShape,
        columns: Sequence[str],
        batches: AsyncIterator[Batch],
        *,
        conflict: Conflict = "error",
        key: tuple[str, ...] | None = None,
        update: tuple[str, ...] | None = None,
        return_ids: bool = False,
        reject: Reject | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> BulkResult:
        """Write every row by the fastest way the database has. With `reject`, rows that conflict or whose reference
        is missing go there, and the others load."""
        ...
