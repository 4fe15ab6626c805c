"""What leads a run through its steps: conditions, and what becomes of those that read from a skipped step."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
MODELS = """\
models:
  Customer:
    fields:
      email: {type: string, max_length: 80, unique: true}
      tier: {type: enum, values: [basic, gold], default: basic}
      nick: string?
"""
WORK = """\
def ok(x: int = 0) -> int: return x
def broken(x: int = 0) -> int: raise ValueError("no")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "flowwork.py").write_text(WORK)
    return tmp_path


def write(folder: Path, steps: str, head: str = "", tail: str = "") -> None:
    body = textwrap.indent(textwrap.dedent(steps), "  ")
    (folder / "p.yaml").write_text(f"name: p\n{textwrap.dedent(head)}steps:\n{body}\n{tail}")


def run(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from runner.cli import main; main()", "p.yaml", "-o", "json", *words],
        cwd=folder, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def states(told: dict[str, Any]) -> dict[str, str]:
    return {name: step["state"] for name, step in told["steps"].items()}


CUSTOMER = "customer: {node: Customer.create, with: {email: a@example.org, tier: gold}}"


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        ("{customer.tier: gold}", "succeeded"),
        ("{customer.tier: {$ne: gold}}", "skipped"),
        ("{customer.nick: null}", "succeeded"),
        ("{customer.nick: {$exists: true}}", "skipped"),
        ("{customer.tier: {$in: [basic]}}", "skipped"),
        ("{params.least: {$gte: 3}, customer.email: {$endswith: .org}}", "succeeded"),
        ("{$or: [{params.least: {$gt: 3}}, {customer.tier: basic}]}", "skipped"),
        ("{$not: {params.least: 4}}", "succeeded"),
        ("{run.pipeline: p}", "succeeded"),
        ("{all.rows.count: {$gt: 1}}", "skipped"),
        ("{all.rows.0.tier: gold}", "succeeded"),
    ],
)
def test_a_condition_is_the_filter_language_over_references(folder: Path, condition: str, state: str) -> None:
    write(folder, f"""
        {CUSTOMER}
        all: {{node: Customer.list, after: customer}}
        it: {{node: log.info, with: {{message: hi}}, when: {condition}}}
        """, head="params: {least: {type: integer, default: 3}}\n")  # fmt: skip
    code, told = run(folder)
    assert (code, states(told)["it"]) == (0, state), told


UPSTREAM = {
    "succeeded": 'up: {node: python.call, with: {function: "flowwork:ok", x: 7}}',
    "skipped": 'up: {node: python.call, with: {function: "flowwork:ok"}, when: {params.on: true}}',
    "failed": 'up: {node: python.call, with: {function: "flowwork:broken"}}',
    "timed_out": 'up: {node: python.call, with: {function: "asyncio:sleep"}, timeout: 50ms}',
    "blocked": 'first: {node: python.call, with: {function: "flowwork:broken"}}\n'
    'up: {node: python.call, with: {function: "flowwork:ok"}, inputs: {x: first.result}}',
}
READER = {
    "data": "inputs: {x: up.result}",
    "data with a default": "inputs: {x: {from: up.result, default: 5}}",
    "after": "after: [up]",
    "after finished": "after: {up: finished}",
    "condition": "when: {up.result: {$gte: 0}}",
}
TABLE = [
    ("succeeded", "data", "succeeded"), ("succeeded", "data with a default", "succeeded"),
    ("succeeded", "after", "succeeded"), ("succeeded", "after finished", "succeeded"),
    ("succeeded", "condition", "succeeded"),
    ("skipped", "data", "skipped"), ("skipped", "data with a default", "succeeded"), ("skipped", "after", "succeeded"),
    ("skipped", "after finished", "succeeded"), ("skipped", "condition", "skipped"),
    ("failed", "data", "blocked"), ("failed", "data with a default", "blocked"), ("failed", "after", "blocked"),
    ("failed", "after finished", "succeeded"), ("failed", "condition", "blocked"),
    ("timed_out", "data", "blocked"), ("timed_out", "data with a default", "blocked"), ("timed_out", "after", "blocked"), ("timed_out", "after finished", "succeeded"), ("timed_out", "condition", "blocked"),
    ("blocked", "data", "blocked"), ("blocked", "data with a default", "blocked"), ("blocked", "after", "blocked"),
    ("blocked", "after finished", "succeeded"), ("blocked", "condition", "blocked"),
]  # fmt: skip


def test_every_row_of_the_state_table(folder: Path) -> None:
    (folder / "flowwork.py").write_text(
        WORK + "import asyncio\nasync def nap(x: int = 0) -> int:\n    await asyncio.sleep(9)\n    return x\n"
    )
    ups = UPSTREAM | {"timed_out": UPSTREAM["timed_out"].replace("asyncio:sleep", "flowwork:nap")}
    wrong = []
    for upstream, text in ups.items():
        rows = [(edge, wanted) for given, edge, wanted in TABLE if given == upstream]
        readers = [
            f'r{n}: {{node: python.call, with: {{function: "flowwork:ok"}}, {READER[edge]}}}'
            for n, (edge, _) in enumerate(rows)
        ]
        write(folder, "\n".join([text, *readers]),
              head="fail_fast: false\nparams: {on: {type: boolean, default: false}}\n")  # fmt: skip
        _, told = run(folder)
        assert states(told)["up"] == upstream
        for n, (edge, wanted) in enumerate(rows):
            if states(told)[f"r{n}"] != wanted:
                wrong.append((upstream, edge, states(told)[f"r{n}"], wanted))
    assert not wrong


def test_the_default_of_a_connection_stands_in_for_a_skipped_step(folder: Path) -> None:
    write(folder, """
        up: {node: python.call, with: {function: "flowwork:ok", x: 7}, when: {params.on: true}}
        it: {node: python.call, with: {function: "flowwork:ok"}, inputs: {x: {from: up.result, default: 5}}}
        """, head="params: {on: {type: boolean, required: true}}\n", tail="outputs: {up: up.result, it: it.result}")  # fmt: skip
    assert run(folder, "-p", "on=true")[1]["outputs"] == {"up": 7, "it": 7}
    assert run(folder, "-p", "on=false")[1]["outputs"] == {"up": None, "it": 5}
