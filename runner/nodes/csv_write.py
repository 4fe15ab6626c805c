"""`csv.write`: rows into a delimited text file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from runner.data.cells import cell_text
from runner.data.rows import Rows
from runner.data.writing import rows_of
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.csv_read import DECIMAL, DELIMITER
from runner.nodes.places import AT, FOLDER, PATTERN, FilePlace, read_place
from runner.nodes.textfile import TO_PATH, read_character, read_encoding, read_switch, read_word, whole_file
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.types import Connection, Delivered, ValueProblem, ValueType

STRING = ValueType("string")
ROWS = Port("rows", ValueType("rows"), True, help="what to write")
ENCODING = Port("encoding", STRING, default="utf-8", literal=True, help="utf-8-sig writes a byte-order mark")
HEADER = Port("header", ValueType("boolean"), default=True, literal=True, help="a first line with the columns' names")
NULL = Port("null", STRING, default="", literal=True, help="the text for null")
RAW = Port(
    "raw", ValueType("boolean"), default=False, literal=True,
    help="write text that begins with = + - @ as it is; without it, a ' goes in front, and csv.read takes it off",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Writing:
    """What is written, where and how."""

    rows: Rows | None
    place: FilePlace
    encoding: str
    delimiter: str
    decimal: str
    null: str
    has_header: bool
    is_raw: bool


def read_rows(arguments: Mapping[str, object]) -> Rows | None:
    """The rows of the port `rows`; None while they are a connection."""
    raw = arguments.get("rows")
    try:
        if isinstance(raw, Connection):
            parse_value(ROWS.type, raw)
            return None
        if isinstance(raw, Delivered):
            kind = raw.type.items if raw.type is not None and raw.type.kind == "list" else raw.type
            fields = kind.fields if kind is not None and kind.kind in ("rows", "record") else None
            return rows_of(raw.value, tuple(fields) if fields is not None else None)
        raise ValueProblem("rows arrive by a connection", kind="shape", fix="inputs: {rows: step.rows}")
    except ValueProblem as problem:
        problem.path = ("rows",)
        raise


class CsvWrite:
    """Takes rows and a path; gives `path` and `count`."""

    name = "csv.write"
    summary = "Write rows to a delimited text file: whole, or not at all."
    uses_database = False
    writes = True
    runs_dry = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        own = (ROWS, TO_PATH, PATTERN, FOLDER, AT, DELIMITER, DECIMAL, NULL, HEADER, ENCODING, RAW)
        return {port.name: port for port in own}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        writing = Writing(
            read_rows(arguments), read_place(arguments), read_encoding(arguments), read_character(arguments, DELIMITER),
            read_character(arguments, DECIMAL), read_word(arguments, NULL),
            read_switch(arguments, "header") or "header" not in arguments, read_switch(arguments, "raw"),
        )  # fmt: skip
        return Checked(ValueType("record", fields={"path": STRING, "count": ValueType("integer")}), writing)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        import asyncio

        assert isinstance(parsed, Writing)
        assert parsed.rows is not None
        count, path = 0, parsed.place.text(context.files.zone)
        with ExitStack() as stack:
            file = await asyncio.to_thread(stack.enter_context, whole_file(context.files.new(path), parsed.encoding))
            writer = csv.writer(file, delimiter=parsed.delimiter, lineterminator="\n")
            if parsed.has_header:
                writer.writerow([cell_text(name, raw=parsed.is_raw) for name in parsed.rows.columns])
            async for batch in parsed.rows.batches():
                await asyncio.to_thread(_write, writer, batch.rows, parsed)
                count += len(batch.rows)
                context.progress(len(batch.rows))
        return {"path": path, "count": count}


def _write(writer: Any, rows: list[tuple[object, ...]], how: Writing) -> None:
    writer.writerows(
        [[cell_text(value, decimal=how.decimal, null=how.null, raw=how.is_raw) for value in row] for row in rows]
    )


KIND = CsvWrite()
