"""`parquet.write`: rows into a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from runner.data.rows import Rows
from runner.nodes.arrow import arrow_table, known_columns
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.csv_write import ROWS, read_rows
from runner.nodes.extras import wants
from runner.nodes.places import AT, FOLDER, PATTERN, FilePlace, read_place
from runner.nodes.textfile import TO_PATH, read_word, whole_file
from schemas.nodes import Port
from schemas.types import Connection, Delivered, ValueType

COMPRESSION = Port(
    "compression", ValueType("enum", values=("zstd", "snappy", "gzip", "none")), default="zstd", literal=True,
    help="how the columns are packed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Writing:
    """What is written, and where. `types` are the columns' types as far as known."""

    rows: Rows | None
    types: Mapping[str, ValueType] | None
    place: FilePlace
    compression: str


def column_types(raw: object) -> Mapping[str, ValueType] | None:
    """The types of the columns that a connection to rows promises."""
    kind = raw.type if isinstance(raw, (Connection, Delivered)) else None
    kind = kind.items if kind is not None and kind.kind == "list" else kind
    return kind.fields if kind is not None and kind.kind in ("rows", "record") else None


class ParquetWrite:
    """Takes rows and a path; gives `path` and `count`."""

    name = "parquet.write"
    summary = "Write rows to a Parquet file: whole, or not at all (extra `parquet`). json and lists are text."
    uses_database = False
    writes = True
    runs_dry = True
    is_repeatable = False
    extra = "parquet"

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {port.name: port for port in (ROWS, TO_PATH, PATTERN, FOLDER, AT, COMPRESSION)}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        types = column_types(arguments.get("rows"))
        writing = Writing(read_rows(arguments), types, read_place(arguments), read_word(arguments, COMPRESSION))
        return Checked(
            ValueType("record", fields={"path": ValueType("string"), "count": ValueType("integer")}), writing
        )

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        import asyncio

        assert isinstance(parsed, Writing)
        assert parsed.rows is not None
        wants(self)
        import pyarrow.parquet as pq

        count, path, names = 0, parsed.place.text(context.files.zone), parsed.rows.columns
        kinds = known_columns(parsed.types, names)
        schema = arrow_table(names, kinds, []).schema
        with ExitStack() as stack:
            file = await asyncio.to_thread(stack.enter_context, whole_file(context.files.new(path), None))
            writer = stack.enter_context(pq.ParquetWriter(file, schema, compression=parsed.compression))
            async for batch in parsed.rows.batches():
                table = await asyncio.to_thread(arrow_table, names, kinds, batch.rows)
                await asyncio.to_thread(writer.write_table, table)
                count += len(batch.rows)
                context.progress(len(batch.rows))
        return {"path": path, "count": count}


KIND = ParquetWrite()
