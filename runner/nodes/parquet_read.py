"""`parquet.read`: typed rows out of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.data.cells import json_value
from runner.data.rows import ROWS_PER_BATCH, Stream
from runner.errors import Problem, StepError
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.extras import wants
from runner.nodes.filerows import FileRows, Tally, output_type
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
from schemas.types import ValueProblem, ValueType, deliver


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read."""

    path: object
    layout: Layout
    collects: bool
    max_rejects: int | None


class ParquetRead:
    """Takes a path and the types of the columns; gives `rows` as a stream, counts and rejects."""

    name = "parquet.read"
    summary = "Read typed rows from a Parquet file, in batches (extra `parquet`)."
    uses_database = False
    writes = False
    is_repeatable = False
    extra = "parquet"

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        own = (PATH, MODEL, FIELDS, COLUMNS, RENAME, MISSING_COLUMNS, REJECTS, MAX_REJECTS)
        return {port.name: port for port in own}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        layout = read_layout(arguments, subject)
        collects = read_word(arguments, REJECTS) == "collect"
        reading = Reading(read_path(arguments), layout, collects, read_max_rejects(arguments, collects))
        return Checked(output_type(layout.types, collects=collects), reading, frozenset({"rows"}))

    async def run(self, parsed: object, context: Context) -> Stream:
        assert isinstance(parsed, Reading)
        wants(self)
        path = context.files.at(str(parsed.path))
        if not path.is_file():
            raise StepError(Problem("DF530", f"there is no file {shown(path)!r}"), "not_found")
        rows = FileRows(
            path, tuple(parsed.layout.types), lambda file, tally: parse(file, tally, parsed.layout),
            collects=parsed.collects, most_rejects=parsed.max_rejects,
        )  # fmt: skip
        return Stream(rows, rows.rest, path)


def parse(path: Path, tally: Tally, layout: Layout) -> Iterator[tuple[int, tuple[object, ...]]]:
    """The rows of the file that fit, each with its number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = [name for name in layout.names.values() if name in file.schema_arrow.names]
            readers = [_reader(name, kind, layout, there) for name, kind in layout.types.items()]
            number = 0
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=there):
                columns = [column.to_pylist() for column in batch.columns]
                for row in zip(*columns, strict=True) if columns else ():
                    number += 1
                    try:
                        yield number, tuple([read(row) for read in readers])
                    except ValueProblem as problem:
                        told = dict(zip(there, row, strict=True))
                        text = json.dumps(told, ensure_ascii=False, default=json_value)
                        tally.reject(number, f"{problem.path[0]}: {problem.what}", text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise StepError(Problem("DF532", f"the file {shown(path)!r} is no Parquet file that can be read")) from None


def _reader(name: str, kind: ValueType, layout: Layout, there: list[str]) -> Callable[[tuple[object, ...]], object]:
    """Takes one column's value out of a row. Raises `StepError` DF532 for a column that has to be there."""
    stand_in, source = layout.stand_ins.get(name), layout.names[name]
    if source not in there:
        if not layout.may_lack or (stand_in is None and not kind.nullable):
            fix = "rename: {…} or fields: […]; missing_columns: null takes null for it"
            raise StepError(Problem("DF532", f"the file has no column {source!r}", None, "", fix))
        return lambda row: stand_in
    at = there.index(source)

    def read(row: tuple[object, ...]) -> object:
        value = row[at]
        if value is None and stand_in is not None and not kind.nullable:
            return stand_in
        try:
            return deliver(kind, value)
        except ValueProblem as problem:
            raise problem.under(name) from None

    return read


KIND = ParquetRead()
