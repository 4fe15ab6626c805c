"""What the executor costs: no-op steps in a chain, side by side, and in a random graph.

    python benchmarks/executor.py [STEPS]

Medians of ROUNDS runs, beside one coroutine awaited a step in the same run. Goal: at most 30 µs a step at 10,000 steps.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from figures import Figure, show

from runner.graph import Graph, GraphStep
from runner.nodes.base import Checked, Context, Subject
from runner.plan import Plan, build_plan
from runner.ports import Link
from runner.run.executor import Executor
from schemas.nodes import Port
from schemas.types import Connection, ValueType

OUTPUT = ValueType("record", fields={"value": ValueType("integer")})
ROUNDS = 5


class NoOp:
    """Gives its input back."""

    name, summary, uses_database, writes, is_repeatable = "no_op", "", False, False, True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        return Checked(OUTPUT, None)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        return {"value": 1}


def plan_of(edges: list[tuple[int, int]], count: int) -> Plan:
    """A plan of `count` steps with one connection an edge."""
    kind, subject = NoOp(), Subject(None, {}, Path())
    upstream: dict[int, list[int]] = {}
    for source, target in edges:
        upstream.setdefault(target, []).append(source)
    steps = {}
    for number in range(count):
        slots = tuple(Connection(f"s{s}.value", ValueType("integer")) for s in upstream.get(number, ()))
        links = tuple(
            Link((f"s{s}", "value"), (f"in{i}",), ValueType("integer"), f"s{s}.value")
            for i, s in enumerate(upstream.get(number, ()))
        )
        arguments: dict[str, object] = {f"in{i}": slot for i, slot in enumerate(slots)}
        steps[f"s{number}"] = GraphStep(
            f"s{number}", "no_op", kind, subject, arguments, Checked(OUTPUT, None), links, slots
        )
    return build_plan(Graph("bench", steps, {}, {}, {}, {}), "bench")


async def run_once(plan: Plan) -> float:
    executor = Executor(plan, None, {}, "run", datetime.now(UTC), Path())
    started = time.perf_counter()
    result = await executor.run()
    seconds = time.perf_counter() - started
    assert result.state == "succeeded" and len(result.steps) == len(plan.steps)
    return seconds


async def bare(count: int) -> float:
    async def nothing() -> dict[str, int]:
        return {"value": 1}

    started = time.perf_counter()
    for _ in range(count):
        await nothing()
    return time.perf_counter() - started


def measure(count: int = 10_000) -> list[Figure]:
    """Microseconds and bytes a step for each shape, the baseline one coroutine awaited a step."""
    chance = random.Random(7)
    shapes = {
        "chain": [(n, n + 1) for n in range(count - 1)],
        "wide": [],
        "random": [(chance.randrange(max(0, n - 50), n), n) for n in range(1, count) for _ in range(2)],
    }
    figures = []
    for name, edges in shapes.items():
        plan = plan_of(edges, count)
        pairs = [(asyncio.run(run_once(plan)), asyncio.run(bare(count))) for _ in range(ROUNDS)]
        ours, base = (statistics.median(column) / count * 1e6 for column in zip(*pairs, strict=True))
        tracemalloc.start()
        asyncio.run(run_once(plan))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        group = f"executor, {count:,} no-op steps"
        figures.append(Figure(group, f"{name}: time a step", ours, "µs", 30, base))
        figures.append(Figure(group, f"{name}: memory a step", peak / count, "bytes", 1500))
    return figures


if __name__ == "__main__":
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
