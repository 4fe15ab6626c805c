"""`parquet.read`: typed rows out of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from runner.data.cells import json_value
from runner.data.rows import ROWS_PER_BATCH
from runner.errors import Problem, StepError
from runner.nodes.extras import wants
from runner.nodes.filerows import RecordRead, Tally
from runner.nodes.textfile import Layout, shown
from schemas.parsing import deliver
from schemas.types import ValueProblem, ValueType


class ParquetRead(RecordRead):
    """Takes a path and the types of the columns; gives `rows` as a stream, counts and rejects."""

    name = "parquet.read"
    summary = "Read typed rows from a Parquet file, in batches (extra `parquet`)."
    extra = "parquet"

    def probe(self, path: Path) -> None:
        wants(self)
        if not path.is_file():
            raise StepError(Problem("DF530", f"there is no file {shown(path)!r}"), "not_found")

    def parse(self, path: Path, tally: Tally, layout: Layout) -> Iterator[tuple[int, tuple[object, ...]]]:
        """The rows of the file that fit, each with its number."""
        return _rows(path, tally, layout)


def _rows(path: Path, tally: Tally, layout: Layout) -> Iterator[tuple[int, tuple[object, ...]]]:
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
                        values = [read(row) for read in readers]
                        layout.judge(values)
                    except ValueProblem as problem:
                        told = dict(zip(there, row, strict=True))
                        text = json.dumps(told, ensure_ascii=False, default=json_value)
                        tally.reject(number, f"{problem.path[0]}: {problem.what}", text)
                        continue
                    yield number, tuple(values)
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
