"""`jsonl.write`: rows into a file with one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from runner.data.cells import json_value
from runner.data.rows import Batch, Rows
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.csv_write import ROWS, read_rows
from runner.nodes.places import AT, FOLDER, PATTERN, FilePlace, read_place
from runner.nodes.textfile import TO_PATH, whole_file
from schemas.nodes import Port
from schemas.types import ValueType


@dataclass(frozen=True, slots=True)
class Writing:
    """What is written, and where."""

    rows: Rows | None
    place: FilePlace


class JsonlWrite:
    """Takes rows and a path; gives `path` and `count`."""

    name = "jsonl.write"
    summary = "Write rows to a file with one JSON object a line: whole, or not at all. Decimals are text."
    uses_database = False
    writes = True
    runs_dry = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {port.name: port for port in (ROWS, TO_PATH, PATTERN, FOLDER, AT)}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        output = ValueType("record", fields={"path": ValueType("string"), "count": ValueType("integer")})
        return Checked(output, Writing(read_rows(arguments), read_place(arguments)))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        import asyncio

        assert isinstance(parsed, Writing)
        assert parsed.rows is not None
        count, path = 0, parsed.place.text(context.files.zone)
        with ExitStack() as stack:
            file = await asyncio.to_thread(stack.enter_context, whole_file(context.files.new(path), "utf-8"))
            async for batch in parsed.rows.batches():
                await asyncio.to_thread(_write, file, batch)
                count += len(batch.rows)
                context.progress(len(batch.rows))
        return {"path": path, "count": count}


def _write(file: IO[str], batch: Batch) -> None:
    file.writelines(
        json.dumps(dict(zip(batch.columns, row, strict=True)), ensure_ascii=False, default=json_value) + "\n"
        for row in batch.rows
    )


KIND = JsonlWrite()
