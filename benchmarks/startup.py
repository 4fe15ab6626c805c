"""What a start costs, the whole process: the version, checking files of 50 and of 10,000 steps, a run of three steps.

    python benchmarks/startup.py

Medians of ROUNDS paired runs. The baseline is a bare python that imports what checking cannot do without.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, show

ROUNDS = 7
MODELS = """\
models:
  Item:
    fields:
      sku: {type: string, max_length: 20, unique: true}
      stock: integer
"""
RUN = """\
name: three
steps:
  one: {node: Item.upsert, with: {sku: a, stock: 1, key: [sku]}}
  two: {node: Item.update, with: {update: {stock: {$inc: 1}}}, inputs: {id: one.id}}
  three: {node: Item.count, after: [two]}
"""


def pipeline(count: int) -> str:
    """A chain of `count` steps, each connected to the one before."""
    lines = ["name: chain", "steps:", "  s0: {node: Item.create, with: {sku: a, stock: 1}}"]
    for number in range(1, count):
        lines.append(
            f"  s{number}: {{node: Item.create, with: {{sku: a{number}}}, inputs: {{stock: s{number - 1}.stock}}}}"
        )
    return "\n".join(lines) + "\n"


def milliseconds(command: list[str], folder: Path) -> float:
    """How long the command takes, from its start to its end."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (time.perf_counter() - started) * 1000


def measure() -> list[Figure]:
    """All figures of this file."""
    dfrun = str(Path(sys.executable).parent / "dfrun")
    os.environ.pop("DATABASE_URL", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models.yaml").write_text(MODELS)
        (folder / "run.yaml").write_text(RUN)
        for count in (50, 10_000):
            (folder / f"{count}.yaml").write_text(pipeline(count))
        bare = [sys.executable, "-c", "import click, yaml, pydantic"]
        work = {
            "--version": (["--version"], 100.0),
            "validate 50 steps": (["validate", "50.yaml"], 350.0),
            "validate 10,000 steps": (["validate", "10000.yaml"], 3000.0),
            "run 3 steps on SQLite": (["run.yaml"], 700.0),
        }
        figures = []
        for operation, (words, goal) in work.items():
            pairs = [(milliseconds([dfrun, *words], folder), milliseconds(bare, folder)) for _ in range(ROUNDS)]
            ours, base = (statistics.median(column) for column in zip(*pairs, strict=True))
            figures.append(Figure("start-up", operation, ours, "ms", goal, base))
        return figures


if __name__ == "__main__":
    show(measure())
