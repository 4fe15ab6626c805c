"""How the ledger keeps a step's output: as JSON text, exact for every type of value; rows that are many, and texts
that are long, in compressed chunks beside the record.

A value of a type that JSON lacks is `{"$dfrun": [type, text]}`. Nothing kept here is code: reading it back runs none.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import cast
from uuid import UUID

from runner.data.rows import Batch, ListRows, Rows
from runner.errors import Problem, StepError

LARGEST_INLINE = 1024 * 1024
LARGEST_OUTPUT = 100 * 1024 * 1024
"""Bytes of JSON; beyond it the rows stay in the database, where the next step can find them."""
_ROWS_INLINE = 256 * 1024
_TAG = "$dfrun"
WriteChunk = Callable[[int, bytes], Awaitable[None]]
ReadChunk = Callable[[int], Awaitable[bytes]]


async def pack(value: object, wanted: frozenset[str] | None, write_chunk: WriteChunk) -> tuple[str, int]:
    """The text that stands for an output, and how many chunks were written beside it.

    wanted: the members that other steps or the run's outputs read. Of the others, rows and lists are left out: keeping
    a million rows for nobody would cost more than making them. None keeps everything.

    Raises `StepError` DF551 past `LARGEST_OUTPUT`.
    """
    packer = _Packer(write_chunk)
    if isinstance(value, Mapping) and wanted is not None:
        value = {k: v for k, v in value.items() if k in wanted or not isinstance(v, (Rows, list))}
    text = encode(await packer.plain(value))
    if len(text) > LARGEST_INLINE:
        first = packer.count
        for start in range(0, len(text), LARGEST_INLINE):
            await packer.chunk(text[start : start + LARGEST_INLINE])
        text = encode(_Text(first, packer.count))
    return text, packer.count


async def unpack(text: str, read_chunk: ReadChunk) -> object:
    """The value that a text stands for; rows in chunks are read when they are asked for."""
    value = decode(text, read_chunk)
    if isinstance(value, _Text):
        parts = [(await read_chunk(number)).decode() for number in range(value.first, value.last)]
        value = decode("".join(parts), read_chunk)
    return value


def read_chunk_data(data: bytes) -> bytes:
    """What `pack` gave to `write_chunk`, as it was before it was compressed."""
    return zlib.decompress(data)


class _Text:
    """A text that is kept in chunks."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last


class RecordedRows(Rows):
    """Rows that stand in the ledger, read a chunk at a time."""

    def __init__(self, columns: tuple[str, ...], count: int, first: int, last: int, read_chunk: ReadChunk) -> None:
        self.columns = columns
        self.count = count
        self.first, self.last = first, last
        self._read_chunk = read_chunk

    async def batches(self) -> AsyncIterator[Batch]:
        """All rows, in order."""
        for number in range(self.first, self.last):
            rows, lines = cast(
                "tuple[list[list[object]], list[int] | None]",
                decode((await self._read_chunk(number)).decode(), self._read_chunk),
            )
            yield Batch(self.columns, [tuple(row) for row in rows], lines)


class _Packer:
    def __init__(self, write_chunk: WriteChunk) -> None:
        self.count = 0
        self.size = 0
        self._write = write_chunk

    async def plain(self, value: object) -> object:
        """The value with its rows made ready to encode."""
        if isinstance(value, Rows):
            return await self._rows(value)
        if isinstance(value, Mapping) and any(isinstance(v, (Rows, Mapping)) for v in value.values()):
            return {key: await self.plain(inner) for key, inner in value.items()}
        return value

    async def _rows(self, rows: Rows) -> object:
        first, count = self.count, 0
        waiting: list[Batch] = []
        waiting_bytes = 0
        async for batch in rows.batches():
            count += len(batch.rows)
            text = _batch_text(batch)
            waiting_bytes += len(text)
            waiting.append(batch)
            if self.count > first or waiting_bytes > _ROWS_INLINE:
                for each in waiting:
                    await self.chunk(text if each is batch else _batch_text(each))
                waiting = []
        if self.count == first:
            kept = [row for batch in waiting for row in batch.rows]
            has_lines = all(batch.lines is not None for batch in waiting)
            lines = [line for batch in waiting for line in batch.lines or ()] if has_lines else None
            return _Tagged("rows", [list(rows.columns), kept, lines])
        return _Tagged("rows in chunks", [list(rows.columns), count, first, self.count])

    async def chunk(self, text: str) -> None:
        self.size += len(text)
        if self.size > LARGEST_OUTPUT:
            what = f"its output is larger than {LARGEST_OUTPUT // 2**20} MiB"
            why = "what a later step reads is kept in the ledger, so that a resumed run reads the same"
            fix = "let the next step find the rows in the database (a filter), or ask for fewer fields"
            raise StepError(Problem("DF551", what, None, why, fix))
        await self._write(self.count, zlib.compress(text.encode(), 1))
        self.count += 1


def _batch_text(batch: Batch) -> str:
    return encode([batch.rows, None if batch.lines is None else list(batch.lines)])


class _Tagged:
    def __init__(self, kind: str, value: object) -> None:
        self.kind, self.value = kind, value


# --- JSON -------------------------------------------------------------------------------------------------------


def encode(value: object) -> str:
    """JSON text from which `decode` makes an equal value. Raises `TypeError` for what is no value of the language."""
    tags = 0

    def tagged(inner: object) -> object:
        nonlocal tags
        tags += 1
        return {_TAG: _tag(inner)}

    text = json.dumps(value, default=tagged, separators=(",", ":"))
    if text.count(f'"{_TAG}"') != tags:
        # data of the user's that looks like a tag: rare, so only then is the whole value gone through
        text = json.dumps(_escaped(value), default=lambda inner: {_TAG: _tag(inner)}, separators=(",", ":"))
    return text


def _tag(value: object) -> list[object]:
    match value:
        case Decimal():
            return ["decimal", str(value)]
        case datetime():
            return ["datetime", value.isoformat()]
        case date():
            return ["date", value.isoformat()]
        case time():
            return ["time", value.isoformat()]
        case UUID():
            return ["uuid", str(value)]
        case bytes():
            return ["bytes", base64.b64encode(value).decode()]
        case _Tagged():
            return [value.kind, value.value]
        case _Text():
            return ["text in chunks", [value.first, value.last]]
        case _:
            raise TypeError(f"{type(value).__name__} cannot be kept in the ledger")


def _escaped(value: object) -> object:
    if isinstance(value, _Tagged):
        return _Tagged(value.kind, _escaped(value.value))
    if isinstance(value, Mapping):
        inner = {key: _escaped(each) for key, each in value.items()}
        return _Tagged("mapping", list(inner.items())) if _TAG in inner else inner
    return [_escaped(each) for each in value] if isinstance(value, (list, tuple)) else value


def decode(text: str, read_chunk: ReadChunk | None = None) -> object:
    """The value that `encode` wrote."""

    def untagged(found: dict[str, object]) -> object:
        if len(found) != 1 or _TAG not in found:
            return found
        kind, value = cast("tuple[str, object]", found[_TAG])
        return _untag(kind, value, read_chunk)

    return json.loads(text, object_hook=untagged)


_SIMPLE: Mapping[str, Callable[[str], object]] = {
    "decimal": Decimal, "datetime": datetime.fromisoformat, "date": date.fromisoformat, "time": time.fromisoformat,
    "uuid": UUID, "bytes": base64.b64decode,
}  # fmt: skip


def _untag(kind: str, value: object, read_chunk: ReadChunk | None) -> object:
    if kind in _SIMPLE:
        return _SIMPLE[kind](str(value))
    parts = cast("list[object]", value)
    match kind:
        case "mapping":
            return dict(cast("list[tuple[str, object]]", parts))
        case "text in chunks":
            first, last = cast("tuple[int, int]", tuple(parts))
            return _Text(first, last)
        case "rows":
            columns, rows, lines = cast("tuple[list[str], list[list[object]], list[int] | None]", tuple(parts))
            return ListRows(columns, [tuple(row) for row in rows], lines)
        case "rows in chunks" if read_chunk is not None:
            names, count, first, last = cast("tuple[list[str], int, int, int]", tuple(parts))
            return RecordedRows(tuple(names), count, first, last, read_chunk)
        case _:
            raise AssertionError(f"the ledger holds a {kind}")
