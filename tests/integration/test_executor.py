"""The executor keeps its promises: order, states, retries, limits, streams, signals. Steps are Python functions."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
FUNCTIONS = """
import asyncio, os, time
from pathlib import Path
from typing import TypedDict

class Line(TypedDict):
    sku: str
    quantity: int

def ok(x: int = 1) -> int: return x
def broken(x: int = 1) -> int: raise ValueError("a secret value")
def slow(seconds: float, x: int = 1) -> int:
    time.sleep(seconds); return x
async def nap(seconds: float, x: int = 1) -> int:
    await asyncio.sleep(seconds); return x
def flaky(file: str) -> int:
    path = Path(file); tries = int(path.read_text()) if path.exists() else 0
    path.write_text(str(tries + 1))
    if tries < 2: raise ConnectionError
    return tries
def lines() -> list[Line]: return [{"sku": "a", "quantity": 2}, {"sku": "b", "quantity": 3}]
def total(lines: list[Line]) -> int: return sum(line["quantity"] for line in lines)
def liar() -> int: return "no number"
def note(path: str, x: int = 1) -> None: Path(path).write_text("done")
async def await_note(path: str) -> bool:
    for _ in range(600):
        if Path(path).exists(): return True
        await asyncio.sleep(0.05)
    return False
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shopwork.py").write_text(FUNCTIONS)
    return tmp_path


def write(folder: Path, steps: str, head: str = "", tail: str = "") -> None:
    (folder / "p.yaml").write_text(
        f"name: p\n{textwrap.dedent(head)}steps:\n{textwrap.indent(textwrap.dedent(steps), '  ')}\n{tail}"
    )


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-c", "from runner.cli import main; main()", *words]


def run(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        command("p.yaml", "-o", "json", *words), cwd=folder, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def call(name: str, **arguments: object) -> str:
    return "{node: python.call, with: " + json.dumps({"function": f"shopwork:{name}", **arguments}) + "}"


def states(told: dict[str, Any]) -> dict[str, str]:
    return {name: step["state"] for name, step in told["steps"].items()}


def test_a_failure_blocks_readers_and_stops_what_has_not_begun(folder: Path) -> None:
    write(folder, f"""
        good: {call("ok")}
        bad: {call("broken")}
        reader: {{node: python.call, with: {{function: "shopwork:ok"}}, inputs: {{x: bad.result}}}}
        later: {{node: python.call, with: {{function: "shopwork:ok"}}, after: [bad]}}
        cleanup: {{node: python.call, with: {{function: "shopwork:ok"}}, after: {{bad: finished}}}}
        """)  # fmt: skip
    code, told = run(folder)
    assert (code, told["state"]) == (1, "failed")
    assert states(told) == {
        "good": "succeeded", "bad": "failed", "reader": "blocked", "later": "blocked", "cleanup": "succeeded",
    }  # fmt: skip
    assert told["error"]["what"].startswith("bad: shopwork:broken raised ValueError at shopwork.py:")
    assert "a secret value" not in json.dumps(told)


def test_without_fail_fast_what_does_not_depend_still_runs(folder: Path) -> None:
    steps = f"""
        bad: {call("broken")}
        first: {call("nap", seconds=0.3)}
        second: {{node: python.call, with: {{function: "shopwork:ok"}}, inputs: {{x: first.result}}}}
        """
    write(folder, steps)
    assert states(run(folder)[1]) == {"bad": "failed", "first": "succeeded", "second": "cancelled"}
    write(folder, steps, head="fail_fast: false\n")
    assert states(run(folder)[1]) == {"bad": "failed", "first": "succeeded", "second": "succeeded"}


def test_a_step_starts_when_its_own_inputs_are_there(folder: Path) -> None:
    write(folder, f"""
        slow: {call("await_note", path=str(folder / "note"))}
        quick: {call("ok")}
        after_quick:
          node: python.call
          with: {{function: "shopwork:note", path: {folder / "note"}}}
          inputs: {{x: quick.result}}
        """, tail="outputs: {met: slow.result}")  # fmt: skip
    code, told = run(folder)
    assert (code, told["outputs"]) == (0, {"met": True})  # `slow` and `quick` begin together; no wave holds the third


def test_a_blocking_function_does_not_block_the_others(folder: Path) -> None:
    write(folder, "\n".join(f"s{n}: {call('slow', seconds=0.8)}" for n in range(6)))
    code, told = run(folder)
    assert code == 0
    longest = max(step["duration_ms"] for step in told["steps"].values())
    assert longest < 2000, "six sleeps of 0.8 s side by side"


@pytest.mark.parametrize(
    ("retry", "code", "attempts"),
    [
        ("{max: 3, delay: 1ms, on: [error, transient]}", 0, 3),
        ("{max: 1, delay: 1ms, on: [error]}", 1, 2),
        ("{max: 3, delay: 1ms, on: [timeout]}", 1, 1),
    ],
)
def test_a_step_is_tried_again_by_its_error_class(folder: Path, retry: str, code: int, attempts: int) -> None:
    write(folder, f"""
        it:
          node: python.call
          with: {{function: "shopwork:flaky", file: tries.txt}}
          retry: {retry}
        """)  # fmt: skip
    status, told = run(folder)
    assert (status, told["steps"]["it"]["attempts"]) == (code, attempts)


def test_a_step_over_its_limit_is_timed_out(folder: Path) -> None:
    write(folder, """
        it:
          node: python.call
          with: {function: "shopwork:nap", seconds: 20}
          timeout: 200ms
        """)  # fmt: skip
    code, told = run(folder)
    assert (code, states(told)) == (1, {"it": "timed_out"})
    assert told["error"]["what"] == "it: it ran longer than its 0.2 s"
    assert told["steps"]["it"]["error"]["class"] == "timeout"


def test_a_run_over_its_limit_ends_with_124(folder: Path) -> None:
    write(folder, f"it: {call('nap', seconds=20)}\nnext: {{node: python.call, with: {{function: 'shopwork:ok'}}, after: it}}",
          head="timeout: 300ms\n")  # fmt: skip
    code, told = run(folder)
    assert (code, told["state"]) == (124, "timed_out")
    assert states(told) == {"it": "cancelled", "next": "blocked"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_running_steps_end_and_starts_no_other(folder: Path, number: int, code: int) -> None:
    write(folder, f"""
        running: {call("nap", seconds=1.5)}
        next: {{node: python.call, with: {{function: "shopwork:ok"}}, after: running}}
        """)  # fmt: skip
    process = subprocess.Popen(
        command("p.yaml", "-o", "jsonl"), cwd=folder, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if '"step_started"' in line:
            break
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(timeout=20) == code
    process.stdout.close()
    summary = json.loads(rest.splitlines()[-1])
    assert summary["state"] == "interrupted"
    assert states(summary) == {"running": "succeeded", "next": "cancelled"}


def test_rows_and_records_pass_between_functions(folder: Path) -> None:
    write(folder, """
        lines: {node: python.call, with: {function: "shopwork:lines"}}
        total: {node: python.call, with: {function: "shopwork:total"}, inputs: {lines: lines.result}}
        first: {node: python.call, with: {function: "shopwork:ok"}, inputs: {x: lines.result.0.quantity}}
        text: {node: text.format, with: {template: "{n} units of {skus}"}, inputs: {n: total.result, skus: lines.result.*.sku}}
        """, tail="outputs: {text: text.text, first: first.result, count: lines.result.count}")  # fmt: skip
    code, told = run(folder)
    assert (code, told["outputs"]) == (0, {"text": '5 units of ["a", "b"]', "first": 2, "count": 2})


def test_a_function_that_breaks_its_own_word_fails(folder: Path) -> None:
    write(folder, f"it: {call('liar')}")
    code, told = run(folder)
    assert code == 1
    assert told["error"]["what"] == "it: shopwork:liar gave something else than it says: wants a whole number, got text"


@pytest.mark.parametrize(
    ("test", "code"),
    [("equals: 3", 0), ("equals: 4", 1), ("not_equals: 4", 0), ("min: 3", 0), ("min: 3.5", 1), ("max: 2", 1),
     ("check: {$in: [1, 3]}", 0), ("check: {$gt: 3}", 1)],
)  # fmt: skip
def test_assert_stops_the_run(folder: Path, test: str, code: int) -> None:
    write(folder, f"""
        it: {call("ok", x=3)}
        sane: {{node: assert, with: {{{test}, message: it must be three}}, inputs: {{value: it.result}}}}
        next: {{node: log.info, with: {{message: fine}}, inputs: {{fields.value: sane.value}}}}
        """)  # fmt: skip
    status, told = run(folder)
    assert status == code
    assert states(told)["next"] == ("succeeded" if code == 0 else "blocked")
    if code:
        assert told["steps"]["sane"]["error"]["class"] == "assertion"


def test_a_users_schemas_folder_shadows_nothing(folder: Path) -> None:
    (folder / "schemas").mkdir()
    (folder / "schemas" / "__init__.py").write_text("raise RuntimeError('shadowed')")
    write(folder, f"it: {call('ok')}")
    assert run(folder)[0] == 0


def test_secrets_come_from_their_sources_and_go_only_where_they_are_asked_for(folder: Path) -> None:
    (folder / "shopwork.py").write_text(
        "from pydantic import SecretStr\ndef length(key: SecretStr) -> int: return len(key.get_secret_value())\n"
    )
    head = "secrets: {key: {env: SHOP_KEY}}\n"
    steps = """
        it:
          node: python.call
          with: {function: "shopwork:length"}
          inputs: {key: secrets.key}
        """
    write(folder, steps, head=head, tail="outputs: {n: it.result}")
    os.environ.pop("SHOP_KEY", None)
    code, told = run(folder)
    assert (code, told["error"]["code"]) == (69, "DF421")
    os.environ["SHOP_KEY"] = "hush"
    try:
        code, told = run(folder)
        assert (code, told["outputs"]) == (0, {"n": 4})
        write(folder, "it: {node: log.info, with: {message: hi}, inputs: {fields.key: secrets.key}}", head=head)
        code, told = run(folder)
        assert (code, told["error"]["code"]) == (2, "DF302")
    finally:
        del os.environ["SHOP_KEY"]
