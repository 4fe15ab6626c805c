"""Rows out of a text file, read in batches on a worker thread; misfits are set aside or end the reading.

Every pass opens the file anew. A file that changed between two passes would give other rows, so that is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from runner.data.rows import ROWS_PER_BATCH, Batch, Rows, SpooledRows, Stream
from runner.errors import Problem, StepError
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.textfile import (
    COLUMNS,
    FIELDS,
    MAX_REJECTS,
    MISSING_COLUMNS,
    MODEL,
    PATH,
    REJECTS,
    RENAME,
    Layout,
    read_layout,
    read_max_rejects,
    read_path,
    read_word,
    shown,
)  # fmt: skip
from schemas.nodes import Port
from schemas.types import ValueType

REJECT_TYPE = ValueType(
    "rows", fields={"line": ValueType("integer"), "reason": ValueType("string"), "text": ValueType("text")}
)


@dataclass(slots=True)
class Tally:
    """What one pass saw besides its rows."""

    most_rejects: int | None
    collects: bool
    count: int = 0
    skipped: int = 0
    rejects: SpooledRows = field(default_factory=lambda: SpooledRows(("line", "reason", "text")))
    _waiting: list[tuple[object, ...]] = field(default_factory=list)

    @property
    def reject_count(self) -> int:
        """How many rows were set aside."""
        return self.rejects.count + len(self._waiting)

    def reject(self, line: int, reason: str, text: str) -> None:
        """Set a row aside. Raises `StepError` DF531 where none may be, DF514 when there are too many."""
        if not self.collects:
            what = f"line {line}: {reason}"
            raise StepError(Problem("DF531", what, None, "", "rejects: collect sets such rows aside"), "constraint")
        self._waiting.append((line, reason, text))
        if self.most_rejects is not None and self.reject_count > self.most_rejects:
            what = f"more than {self.most_rejects} rows do not fit; the last of them: line {line}: {reason}"
            raise StepError(Problem("DF514", what, None, "max_rejects says so"), "constraint")

    def flush(self) -> None:
        """Move what waits into the spool."""
        self.rejects.append(Batch(self.rejects.columns, self._waiting))
        self._waiting = []


Parse = Callable[[Path, Tally], Iterator[tuple[int, tuple[object, ...]]]]
"""Reads a file from its start: the line and the values of each row that fits, the others into the tally."""


class FileRows(Rows):
    """The rows of one file; `rest` gives the tally of the first complete pass."""

    def __init__(
        self, path: Path, columns: tuple[str, ...], parse: Parse, *, collects: bool, most_rejects: int | None
    ) -> None:
        self.columns = columns
        self._path = path
        self._parse = parse
        self._collects = collects
        self._most = most_rejects
        self._first: Tally | None = None
        self._identity: tuple[int, ...] | None = None

    async def batches(self) -> AsyncIterator[Batch]:
        """All rows, in order. Raises `StepError` where the file or a row is not as it should be."""
        import asyncio

        tally = Tally(self._most, self._collects)
        rows = self._parse(self._path, tally)
        self._check_identity()
        try:
            while True:
                batch = await asyncio.to_thread(_take, rows, self.columns)
                tally.count += len(batch.rows)
                tally.flush()
                if batch.rows:
                    yield batch
                if len(batch.rows) < ROWS_PER_BATCH:
                    break
        finally:
            close = getattr(rows, "close", None)
            if close is not None:
                # while its thread still reads, a cancelled pass cannot be closed; it is when the thread lets go of it
                with suppress(ValueError):
                    close()
        self._first = self._first or tally

    def rest(self) -> Mapping[str, object]:
        """`count`, `skipped`, `reject_count` and, where rows are set aside, `rejects`."""
        assert self._first is not None, "one pass is complete"
        tally = self._first
        output: dict[str, object] = {
            "count": tally.count, "skipped": tally.skipped, "reject_count": tally.reject_count,
        }  # fmt: skip
        return output | {"rejects": tally.rejects} if self._collects else output

    def _check_identity(self) -> None:
        try:
            stat = self._path.stat()
        except OSError:
            return  # opening it says what is wrong
        identity = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._identity is not None and identity != self._identity:
            raise StepError(Problem("DF534", f"the file {shown(self._path)!r} changed while it was read"))
        self._identity = identity


def _take(rows: Iterator[tuple[int, tuple[object, ...]]], columns: tuple[str, ...]) -> Batch:
    lines: list[int] = []
    values: list[tuple[object, ...]] = []
    for line, row in rows:
        lines.append(line)
        values.append(row)
        if len(values) == ROWS_PER_BATCH:
            break
    return Batch(columns, values, lines)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file of records is read."""

    path: object
    layout: Layout
    collects: bool
    max_rejects: int | None


class RecordRead(ABC):
    """A kind that reads a file whose records name their members: its arguments, and its rows as a stream."""

    name: str
    summary: str
    uses_database = False
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        """The same for every such file."""
        own = (PATH, MODEL, FIELDS, COLUMNS, RENAME, MISSING_COLUMNS, REJECTS, MAX_REJECTS)
        return {port.name: port for port in own}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        """The columns, and what becomes of rows that do not fit."""
        layout = read_layout(arguments, subject)
        collects = read_word(arguments, REJECTS) == "collect"
        reading = Reading(read_path(arguments), layout, collects, read_max_rejects(arguments, collects))
        return Checked(output_type(layout.types, collects=collects), reading, frozenset({"rows"}))

    async def run(self, parsed: object, context: Context) -> Stream:
        """The rows; a file that is not there fails this step, not its readers."""
        assert isinstance(parsed, Reading)
        path = context.files.at(str(parsed.path))
        self.probe(path)
        rows = FileRows(
            path, tuple(parsed.layout.types), lambda file, tally: self.parse(file, tally, parsed.layout),
            collects=parsed.collects, most_rejects=parsed.max_rejects,
        )  # fmt: skip
        return Stream(rows, rows.rest, path)

    @abstractmethod
    def probe(self, path: Path) -> None:
        """Raises `StepError` where there is no such file."""

    @abstractmethod
    def parse(self, path: Path, tally: Tally, layout: Layout) -> Iterator[tuple[int, tuple[object, ...]]]:
        """The rows of the file that fit, each with its number."""


def output_type(types: Mapping[str, ValueType], *, collects: bool) -> ValueType:
    """The type of what a reading step gives."""
    integer = ValueType("integer")
    fields = {"rows": ValueType("rows", fields=types), "count": integer, "skipped": integer, "reject_count": integer}
    return ValueType("record", fields=fields | {"rejects": REJECT_TYPE} if collects else fields)
