"""Kill a run at random moments, resume it until it is done, and compare the data with that of a run nobody disturbed.

    python tests/chaos/kills.py --database postgresql://localhost/scratch --kills 1000

The database must be empty; its tables are left for you to look at. One process imports everything once and forks a
child a run, so that a kill costs what the killed run costs. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from runner import api
from runner.database import Target, open_store
from runner.dialects.session import open_engine
from runner.errors import DfrunError
from runner.loading import load

MODELS = """
models:
  Item:
    fields:
      sku: {type: string, max_length: 40, unique: true}
      stock: {type: integer, default: 100}
      price: {type: decimal, precision: 12, scale: 2, default: 10}
    features: {timestamps: false}
  Movement:
    fields: {label: {type: string, max_length: 40}, quantity: integer}
    features: {timestamps: false}
  Line:
    fields: {round: {type: string, max_length: 40}, number: integer, amount: {type: decimal, precision: 12, scale: 2}}
    features: {timestamps: false}
"""
PIPELINE = """
name: kills
params: {round: {type: string, required: true}, sku: {type: string, required: true}}
steps:
  item: {node: Item.create, with: {stock: 100}, inputs: {sku: params.sku}}
  read: {node: csv.read, with: {path: lines.csv, columns: {number: integer, amount: decimal}}}
  load: {node: Line.bulk_create, with: {batch_size: 50, commit: batch}, inputs: {data: read.rows, round: params.round}, after: item}
  left: {node: Item.update, with: {update: {stock: {$dec: 7}}}, inputs: {filter.sku: params.sku}, after: item}
  right: {node: Item.update, with: {update: {price: {$multiply: 1.5}}}, inputs: {filter.sku: params.sku}, after: item}
  note: {node: Movement.create, with: {quantity: 1}, inputs: {label: params.round}, after: item}
  upsert: {node: Item.upsert, with: {sku: total, stock: 0, key: [sku]}, after: [left, right]}
  total: {node: Item.update, with: {filter: {sku: total}, update: {stock: {$inc: 3}}}, after: upsert}
  move:
    transaction: true
    after: [left, right, note]
    steps:
      mark: {node: Movement.create, with: {quantity: 5}, inputs: {label: params.round}}
      drop: {node: Movement.bulk_delete, with: {filter: {quantity: 5}}, after: mark}
  sum: {node: Line.aggregate, with: {aggregate: {all: {$count: "*"}}}, inputs: {filter.round: params.round}, after: load}
  keep: {node: Movement.create, inputs: {label: params.round, quantity: sum.all}}
  raise: {node: Line.bulk_update, with: {update: {amount: {$inc: 0.5}}}, inputs: {filter.round: params.round}, after: sum}
outputs: {lines: read.count, counted: sum.all}
"""
STEPS = 12
"""What a run records; the transaction is one."""


def write_project(folder: Path) -> None:
    (folder / "models.yaml").write_text(MODELS)
    (folder / "kills.yaml").write_text(PIPELINE)
    rows = "".join(f"{n},{n}.25\n" for n in range(400))
    (folder / "lines.csv").write_text("number,amount\n" + rows)


def child(folder: Path, url: str, run_id: str, number: int, is_resume: bool) -> int:
    """Run or resume in a process of its own, which ends with the exit status."""
    os.chdir(folder)
    options = api.RunOptions((f"round=r{number}", f"sku=s{number}"), database=url, run_id=run_id)
    try:
        if is_resume:
            result = asyncio.run(api.resume_run(run_id, options, api.Decisions()))
        else:
            result = asyncio.run(api.run_file(folder / "kills.yaml", options))
    except DfrunError as error:
        sys.stderr.write(f"{error}\n")
        return {"DF441": 40, "DF442": 0}.get(error.problems[0].code, error.exit_code)
    for problem in result.problems:
        sys.stderr.write(f"{problem}\n")
    return 0 if result.state == "succeeded" else 1


def fork(work: Any) -> int:
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def state_of(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the user's tables without generated keys, in an order of their own."""

    async def read() -> dict[str, list[tuple[object, ...]]]:
        engine = open_engine(url, poolclass=sa.NullPool)
        async with engine.connect() as connection:
            found = {
                name: [tuple(row) for row in await connection.execute(sa.text(statement))]
                for name, statement in {
                    "item": "SELECT sku, stock, price FROM item ORDER BY sku",
                    "movement": "SELECT label, quantity, count(*) FROM movement GROUP BY 1, 2 ORDER BY 1, 2",
                    "line": "SELECT round, number, amount, count(*) FROM line GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
                }.items()
            }
        await engine.dispose()
        return found

    return asyncio.run(read())


def recorded(url: str) -> list[tuple[object, ...]]:
    """Each run with the number of its recorded steps, the parts of the load aside."""

    async def read() -> list[tuple[object, ...]]:
        engine = open_engine(url, poolclass=sa.NullPool)
        steps = "dfrun.steps" if url.startswith("postgresql") else "_dfrun_steps"
        done = f"SELECT run_id, count(*) FROM {steps} WHERE part = '' AND (status = 'done' OR seq > 0) GROUP BY run_id ORDER BY 1"
        async with engine.connect() as connection:
            found = [tuple(row) for row in await connection.execute(sa.text(done))]
        await engine.dispose()
        return found

    return asyncio.run(read())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--reference", help="another empty database, for the undisturbed runs; SQLite without it")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--latest", type=float, default=1.0, help="the last moment of a kill, in undisturbed runs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    chance = random.Random(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="dfrun-kills-"))
    write_project(folder)
    reference = given.reference or f"sqlite:///{folder}/reference.db"
    for url in (given.database, reference):
        assert wait(fork(lambda url=url: made(folder, url))) == 0, "the tables could not be made"
    started = time.monotonic()
    kills, number, untouched, longest = 0, 0, [], 0.0
    for warm in range(3):
        begun = time.monotonic()
        assert wait(fork(lambda n=warm: child(folder, given.database, f"w{n}", 10**6 + n, False))) == 0
        untouched.append(time.monotonic() - begun)
    length = sorted(untouched)[1]
    while kills < given.kills and time.monotonic() - started < given.seconds:
        run_id, is_resume = f"k{number}", False
        while True:
            pid = fork(partial(child, folder, given.database, run_id, number, is_resume))
            if kills < given.kills:
                time.sleep(chance.uniform(0.2 if not is_resume else 0.15, given.latest) * length)
                os.kill(pid, signal.SIGKILL)
            begun = time.monotonic()
            code = wait(pid)
            longest = max(longest, time.monotonic() - begun)
            if code == -signal.SIGKILL:
                kills += 1
                is_resume = True
            elif code == 40:
                is_resume = False  # killed before the run was entered
            elif code == 0:
                break
            else:
                print(json.dumps({"failed": f"run {run_id} ended with {code}", "seed": given.seed, "kills": kills}))
                return 1
        number += 1
    for n in [10**6, 10**6 + 1, 10**6 + 2, *range(number)]:
        assert wait(fork(lambda n=n: child(folder, reference, f"u{n}", n, False))) == 0
    same = _normal(state_of(given.database)) == _normal(state_of(reference))
    counts = {count for _, count in recorded(given.database)}
    print(json.dumps({
        "kills": kills, "runs": number, "same_data": same, "steps_recorded": sorted(map(int, counts)),
        "seconds": round(time.monotonic() - started, 1), "undisturbed_ms": round(length * 1000), "seed": given.seed,
    }))  # fmt: skip
    return 0 if same and counts == {STEPS} else 1


def made(folder: Path, url: str) -> int:
    """The tables of the models, in a process of its own."""

    async def make() -> None:
        async with open_store(Target(url, "", True), load(folder / "kills.yaml").graph.models):
            pass

    asyncio.run(make())
    return 0


def _normal(state: dict[str, list[tuple[object, ...]]]) -> str:
    """Both databases' rows in one form: SQLite keeps a decimal as a whole number of cents."""
    from decimal import Decimal

    def value(each: object) -> object:
        return int(each * 100) if isinstance(each, Decimal) else each

    return json.dumps({name: [[value(v) for v in row] for row in rows] for name, rows in state.items()}, default=str)


if __name__ == "__main__":
    sys.exit(main())
