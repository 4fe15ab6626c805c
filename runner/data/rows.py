"""Rows on their way between steps: batches of tuples under one list of columns, never a whole file in memory."""

from __future__ import annotations

import pickle
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROWS_PER_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows in order. `lines` is the line (or element) number of each row in the source, None when unknown."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    lines: Sequence[int] | None = None


class Rows(ABC):
    """A stream that can be read again: every call of `batches` starts at the first row and gives the same rows."""

    columns: tuple[str, ...]

    @abstractmethod
    def batches(self) -> AsyncIterator[Batch]:
        """All rows, in order, in batches of any size above 0."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """What a node gives whose rows may be read before it is done: `rows`, and with `rest()` the other members of its
    output, once one pass over the rows is complete. `file` is what they are read from: a resumed run reads it again
    and must find it unchanged."""

    rows: Rows
    rest: Callable[[], Mapping[str, object]]
    file: Path | None = None


async def count_rows(rows: Rows) -> int:
    """How many rows there are; takes a pass unless they know it."""
    known = getattr(rows, "count", None)
    return known if isinstance(known, int) else sum([len(batch.rows) async for batch in rows.batches()])


class ListRows(Rows):
    """Rows that are in memory already."""

    def __init__(
        self, columns: Sequence[str], rows: list[tuple[object, ...]], lines: Sequence[int] | None = None
    ) -> None:
        self.columns = tuple(columns)
        self.rows = rows
        self.lines = lines
        self.count = len(rows)

    async def batches(self) -> AsyncIterator[Batch]:
        for start in range(0, len(self.rows), ROWS_PER_BATCH):
            end = start + ROWS_PER_BATCH
            yield Batch(self.columns, self.rows[start:end], self.lines[start:end] if self.lines is not None else None)


class SpooledRows(Rows):
    """Rows kept aside for later readers: the first `memory_rows` in memory, the rest in an unnamed temporary file.

    Fill it with `append`, then `close_for_reading`; the file vanishes with the object.
    """

    def __init__(self, columns: Sequence[str], memory_rows: int = 20_000) -> None:
        self.columns = tuple(columns)
        self.count = 0
        self._memory_rows = memory_rows
        self._batches: list[Batch] = []
        self._file: IO[bytes] | None = None
        self._offsets: list[int] = []

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, batch: Batch) -> None:
        """Keep a batch; batches come back in the order they went in."""
        if not batch.rows:
            return
        self.count += len(batch.rows)
        if self._file is None and self.count <= self._memory_rows:
            self._batches.append(batch)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="dfrun-")  # noqa: SIM115, it lives as long as the rows
        self._offsets.append(self._file.tell())
        pickle.dump((batch.rows, batch.lines), self._file, protocol=5)

    async def batches(self) -> AsyncIterator[Batch]:
        for batch in self._batches:
            yield batch
        if self._file is not None:
            for offset in list(self._offsets):
                self._file.seek(offset)
                rows, lines = pickle.load(self._file)
                yield Batch(self.columns, rows, lines)
                # another reader may have moved the file: every batch seeks for itself


def rows_of_mappings(items: Iterable[dict[str, object]], columns: Sequence[str] | None = None) -> ListRows:
    """Rows from dictionaries; the columns are those of the first unless named, missing keys become None."""
    listed = list(items)
    names = tuple(columns) if columns is not None else tuple(dict.fromkeys(k for item in listed[:1000] for k in item))
    rows = [tuple(item.get(name) for name in names) for item in listed]
    return ListRows(names, rows, range(1, len(rows) + 1))
