"""`csv.read`: typed rows out of a delimited text file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.data.cells import Reader, cell_reader
from runner.data.rows import Stream
from runner.errors import Problem, StepError, did_you_mean
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.filerows import FileRows, Tally, output_type
from runner.nodes.textfile import (
    COLUMNS,
    ENCODING,
    FIELDS,
    MAX_REJECTS,
    MISSING_COLUMNS,
    MODEL,
    PATH,
    REJECTS,
    RENAME,
    Layout,
    open_text,
    read_character,
    read_encoding,
    read_layout,
    read_max_rejects,
    read_path,
    read_switch,
    read_word,
    shown,
    undecodable,
)  # fmt: skip
from schemas.nodes import Port
from schemas.types import ValueProblem, ValueType

STRING = ValueType("string")
DELIMITER = Port("delimiter", STRING, default=",", literal=True, help="one character between cells")
QUOTE = Port("quote", STRING, default='"', literal=True, help="one character around cells")
DECIMAL = Port("decimal", STRING, default=".", literal=True, help="one character before the fraction")
NULL = Port("null", STRING, default="", literal=True, help="the text that means null; an empty cell always does")
DATE_FORMAT = Port(
    "date_format", ValueType("json"), literal=True, shape="field_list",
    help="of dates and datetimes, such as %d.%m.%Y %H:%M; one or a list; ISO 8601 without it",
)  # fmt: skip
RAW = Port("raw", ValueType("boolean"), default=False, literal=True, help="leave a ' before = + - @ where it stands")
LARGEST_CELL = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read."""

    path: object
    layout: Layout
    encoding: str
    delimiter: str
    quote: str
    decimal: str
    null: str
    date_formats: tuple[str, ...]
    is_raw: bool
    collects: bool
    max_rejects: int | None


def read_date_formats(raw: object) -> tuple[str, ...]:
    """One format or a list of them. Raises `ValueProblem`."""
    formats = raw if isinstance(raw, list) else [raw]
    for each in formats:
        if not isinstance(each, str) or "%" not in each:
            raise ValueProblem("wants a format such as %d.%m.%Y", ("date_format",), kind="shape")
    return tuple(map(str, formats))


class CsvRead:
    """Takes a path and the types of the columns; gives `rows` as a stream, counts and rejects."""

    name = "csv.read"
    summary = "Read typed rows from a delimited text file, in batches: a file is never whole in memory."
    uses_database = False
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        own = (PATH, MODEL, FIELDS, COLUMNS, RENAME, MISSING_COLUMNS, DELIMITER, QUOTE, DECIMAL, DATE_FORMAT, NULL,
               ENCODING, RAW, REJECTS, MAX_REJECTS)  # fmt: skip
        return {port.name: port for port in own}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        layout = read_layout(arguments, subject)
        collects = read_word(arguments, REJECTS) == "collect"
        reading = Reading(
            read_path(arguments), layout, read_encoding(arguments), read_character(arguments, DELIMITER),
            read_character(arguments, QUOTE), read_character(arguments, DECIMAL), read_word(arguments, NULL),
            read_date_formats(arguments["date_format"]) if "date_format" in arguments else (),
            read_switch(arguments, "raw"), collects, read_max_rejects(arguments, collects),
        )  # fmt: skip
        return Checked(output_type(layout.types, collects=collects), reading, frozenset({"rows"}))

    async def run(self, parsed: object, context: Context) -> Stream:
        assert isinstance(parsed, Reading)
        path = context.files.at(str(parsed.path))
        open_text(path, parsed.encoding).close()  # a missing file fails this step, not its readers
        rows = FileRows(
            path, tuple(parsed.layout.types), lambda file, tally: parse(file, tally, parsed),
            collects=parsed.collects, most_rejects=parsed.max_rejects,
        )  # fmt: skip
        return Stream(rows, rows.rest, path)


def parse(path: Path, tally: Tally, reading: Reading) -> Iterator[tuple[int, tuple[object, ...]]]:
    """The rows of the file that fit."""
    csv.field_size_limit(LARGEST_CELL)
    with open_text(path, reading.encoding) as file:
        reader = csv.reader(file, delimiter=reading.delimiter, quotechar=reading.quote, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise StepError(
                    Problem("DF532", f"the file {shown(path)!r} is empty", None, "a first line names the columns")
                )
            plan, stand_ins = _plan(header, reading)
            yield from _rows(reader, len(header), plan, stand_ins, tally, reading)
        except UnicodeDecodeError:
            raise StepError(undecodable(path, reading.encoding)) from None
        except csv.Error as error:
            what, fix = "a quote is not closed", "quote: names another mark"
            if "field limit" in str(error):
                what, fix = f"a cell longer than {LARGEST_CELL >> 20} MiB", "is a quote left open before it?"
            elif "end of data" not in str(error):
                what = str(error)
            raise StepError(Problem("DF531", f"line {reader.line_num}: {what}", None, "", fix)) from None


def _plan(header: list[str], reading: Reading) -> tuple[list[tuple[str, int, Reader]], dict[int, object]]:
    """The columns that are read: name, position, reader; and what stands in for those that the file lacks.

    Raises `StepError` DF532 for a header that does not fit.
    """
    layout = reading.layout
    names = [name.strip() for name in header]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None and twice in layout.names.values():
        raise StepError(Problem("DF532", f"the header names the column {twice!r} twice"))
    missing = [here for here, there in layout.names.items() if there not in names]
    if missing and not layout.may_lack:
        there = layout.names[missing[0]]
        unused = [name for name in names if name and name not in layout.names.values()]
        hint = did_you_mean(there, unused) if unused else ""
        if hint.startswith("did you mean "):
            hint = f"rename: {{{hint.removeprefix('did you mean ')[:-1]}: {missing[0]}}}"
        if len(names) == 1 and (other := next((mark for mark in ";\t|," if mark in names[0]), "")):
            hint = f"delimiter: {json.dumps(other)}"
        what = f"the file has no column {there!r}" + (f", nor {len(missing) - 1} more" if len(missing) > 1 else "")
        fix = hint or "rename: {…} or fields: […]; missing_columns: null takes null for it"
        raise StepError(Problem("DF532", what, None, f"its header names {', '.join(names[:20])}", fix))
    plan, stand_ins = [], {}
    for position, (here, kind) in enumerate(layout.types.items()):
        if here in missing:
            if here not in layout.stand_ins and not kind.nullable:
                raise StepError(
                    Problem("DF532", f"the file has no column {layout.names[here]!r}, and {here!r} may not be null")
                )
            stand_ins[position] = layout.stand_ins.get(here)
            continue
        default = here in layout.stand_ins and not kind.nullable
        reader = cell_reader(
            kind.optional() if default else kind, decimal=reading.decimal, date_formats=reading.date_formats,
            null=reading.null, guarded=not reading.is_raw,
        )  # fmt: skip
        if default:
            reader = _with_default(reader, layout.stand_ins[here])
        plan.append((here, names.index(layout.names[here]), reader))
    return plan, stand_ins


def _with_default(reader: Reader, default: object) -> Reader:
    def read(text: str) -> object:
        value = reader(text)
        return default if value is None else value

    return read


def _rows(
    reader: Iterator[list[str]], width: int, plan: list[tuple[str, int, Reader]], stand_ins: Mapping[int, object],
    tally: Tally, reading: Reading,
) -> Iterator[tuple[int, tuple[object, ...]]]:  # fmt: skip
    line_after = reader.line_num  # type: ignore[attr-defined]
    steps = [(index, read) for _, index, read in plan]
    layout, delimiter = reading.layout, reading.delimiter
    for row in reader:
        line, line_after = line_after + 1, reader.line_num  # type: ignore[attr-defined]
        if not any(row):
            tally.skipped += 1
            continue
        if len(row) != width:
            tally.reject(line, f"{len(row)} cells, the header has {width}", _text(row, delimiter))
            continue
        try:
            values = [read(row[index]) for index, read in steps]
        except ValueProblem:
            tally.reject(line, _reason(row, plan), _text(row, delimiter))
            continue
        for position, value in stand_ins.items():
            values.insert(position, value)
        if layout.checks:
            try:
                layout.judge(values)
            except ValueProblem as problem:
                tally.reject(line, f"{problem.path[0]}: {problem.what}", _text(row, delimiter))
                continue
        yield line, tuple(values)


def _reason(row: list[str], plan: list[tuple[str, int, Reader]]) -> str:
    """Which column does not fit, and why; asked only for rows that do not."""
    for name, index, read in plan:
        try:
            read(row[index])
        except ValueProblem as problem:
            return f"{name}: {problem.what}"
    raise AssertionError("a row that did not fit fits now")


def _text(row: list[str], delimiter: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="").writerow(row)
    return buffer.getvalue()


KIND = CsvRead()
