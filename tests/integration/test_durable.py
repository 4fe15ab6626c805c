"""A run is recorded where its effects are: it is resumed, refused, fenced and looked up, on both databases."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from durable import MODELS, Project, call, empty_database, wait_until
from warm import Warm

DIES = f"""
item: {{node: Item.create, with: {{sku: a, stock: 5}}}}
dies: {{node: python.call, with: {{function: "work:once", flag: died}}, inputs: {{x: item.stock}}}}
more: {{node: Item.update, with: {{filter: {{sku: a}}, update: {{stock: {{$inc: 10}}}}}}, after: dies}}
last: {call("plain", x=1)}
"""
OUT = "outputs: {stock: more.stock, given: dies.result}"


def test_a_killed_run_is_shown_resumed_and_then_refused(project: Project) -> None:
    project.write(DIES, tail=OUT)
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == -signal.SIGKILL
    code, out, _ = project.dfrun("runs", "list")
    assert code == 0 and "interrupted  → dfrun resume r1" in out
    told = json.loads(project.dfrun("runs", "show", "r1", "-o", "json")[1])
    assert {name: step["state"] for name, step in told["steps"].items() if name != "last"} == {
        "item": "succeeded", "dies": "not run", "more": "not run",
    }  # fmt: skip
    assert "it waits for dies" in project.dfrun("runs", "show", "r1", "--why", "more")[1]
    code, out, _ = project.dfrun("resume", "r1", "-o", "json")
    told = json.loads(out)
    assert (code, told["state"], told["outputs"]) == (0, "succeeded", {"stock": 15, "given": 5})
    assert (told["steps"]["item"]["attempts"], told["steps"]["dies"]["attempts"]) == (0, 1)
    assert project.rows("SELECT sku, stock FROM item") == [("a", 15)]
    steps = project.rows(f"SELECT step_id, status, epoch FROM {project.ledger('steps')} ORDER BY seq")
    assert [(step, status) for step, status, _ in steps if step != "last"] == [
        ("item", "done"), ("dies", "done"), ("more", "done"),
    ]  # fmt: skip
    code, _, err = project.dfrun("resume", "r1")
    assert code == 2 and "DF442 run r1 has succeeded" in err
    assert "it ran after dies" in project.dfrun("runs", "show", "r1", "--why", "more")[1]


def test_a_killed_group_goes_on_inside(project: Project) -> None:
    project.write(f"""
        seed: {{node: Item.create, with: {{sku: s, stock: 1}}}}
        book:
          after: [seed]
          steps:
            add: {{node: Item.create, with: {{sku: a}}}}
            take: {{node: Item.update, with: {{sku: s, update: {{stock: {{$inc: 5}}}}}}, after: [add]}}
            dies: {call("once", flag="died")[:-1]}, after: [take]}}
            last: {{node: Item.create, with: {{sku: b}}, after: [dies]}}
          outputs: {{id: last.id}}
        seen: {{node: Item.count, after: [book]}}
        """)
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == -signal.SIGKILL
    assert project.rows("SELECT sku, stock FROM item ORDER BY sku") == [("a", 0), ("s", 6)]
    code, out, err = project.dfrun("resume", "r1", "-o", "json")
    assert code == 0, err
    assert json.loads(out)["steps"]["seen"]["state"] == "succeeded"
    assert project.rows("SELECT sku, stock FROM item ORDER BY sku") == [("a", 0), ("b", 0), ("s", 6)]


def test_a_failed_run_goes_on_and_its_failed_attempts_stay_on_record(project: Project) -> None:
    project.write("""
        item: {node: Item.create, with: {sku: a}}
        fails: {node: python.call, with: {function: "work:fail_once", flag: failed}, after: item}
        after: {node: Item.create, with: {sku: b}, after: fails}
        """)
    code, out, _ = project.dfrun("p.yaml", "--run-id", "r1", "-o", "json")
    error = json.loads(out)["error"]
    assert (code, error["step"], error["attempt"], error["class"], error["code"]) == (1, "fails", 1, "error", "DF525")
    assert "p r1: failed" in project.dfrun("runs", "show", "r1")[1]
    assert project.dfrun("resume", "r1")[0] == 0
    shown = project.dfrun("runs", "show", "r1", "--why", "fails")[1]
    assert "fails: succeeded" in shown and "attempt 1 of process 1: DF525" in shown and "class error" in shown
    assert project.rows("SELECT sku FROM item ORDER BY sku") == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["resume", "nowhere"], 2, "DF441 there is no run 'nowhere'"),
        (["runs", "show", "nowhere"], 2, "DF441"),
        (["runs", "show", "r1", "--why", "itm"], 2, "did you mean item?"),
        (["runs", "cancel", "r1"], 2, "DF442 run r1 has ended"),
        (["p.yaml", "--run-id", "r1"], 2, "DF445 there is a run 'r1' already"),
        (["resume", "r1", "--redo", "item"], 2, "DF442"),
    ],
)
def test_a_wrong_call_is_refused_in_words(project: Project, words: list[str], code: int, message: str) -> None:
    project.write("item: {node: Item.upsert, with: {sku: a, key: [sku]}}")
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == 0
    done = project.dfrun(*words)
    assert done[0] == code and message in done[2]


def test_a_second_run_is_refused_while_the_first_goes_on(project: Project) -> None:
    project.write(f"it: {call('waits', file='go')}")
    first = project.start("p.yaml", "--run-id", "r1")
    wait_until(lambda: project.dfrun("runs", "list")[1].startswith("r1"))
    code, _, err = project.dfrun("p.yaml")
    assert code == 3 and f"DF440 another run of 'p' is going on: r1, process {first.pid} on " in err
    code, _, err = project.dfrun("resume", "r1")
    assert code == 3 and "DF443 run r1 is going on" in err
    (project.folder / "go").touch()
    assert first.wait() == 0
    assert project.dfrun("p.yaml")[0] == 0


@pytest.mark.parametrize(
    ("policy", "says", "statuses"),
    [
        ("skip", "another run of 'p' is going on", {"r1": "succeeded"}),
        ("wait", "waiting for its end", {"r1": "succeeded", "r2": "succeeded"}),
        ("replace", "it is asked to stop", {"r1": "cancelled", "r2": "succeeded"}),
        ("allow", "", {"r1": "succeeded", "r2": "succeeded"}),
    ],
)
def test_overlap_says_what_a_second_run_does(
    project: Project, policy: str, says: str, statuses: dict[str, str]
) -> None:
    project.write(f"""
        one: {call("waits", file="go")}
        two: {{node: python.call, with: {{function: "work:plain", x: 1}}, after: one}}
        """, head=f"overlap: {policy}")  # fmt: skip
    first = project.start("p.yaml", "--run-id", "r1", "-o", "jsonl", DFRUN_LEASE_SECONDS="6")
    wait_until(lambda: '"step_started"' in first.out.read_text())
    second = project.start("p.yaml", "--run-id", "r2", DFRUN_LEASE_SECONDS="6")
    wait_until(lambda: says in second.err.read_text())
    if policy == "replace":
        wait_until(lambda: "cancelled" in first.out.read_text(), 30)  # the beat has told it, its grace is over
    (project.folder / "go").touch()
    assert second.wait() == 0
    assert first.wait() == (1 if policy == "replace" else 0)
    assert dict(project.rows(f"SELECT run_id, status FROM {project.ledger('runs')}")) == statuses


def test_an_idempotency_key_gives_the_first_result(project: Project) -> None:
    project.write(f"""
        counted: {call("count", file="counted")}
        item: {{node: Item.upsert, with: {{sku: a, key: [sku]}}, inputs: {{stock: params.stock}}}}
        """, head="params: {stock: {type: integer, default: 1}}", tail="outputs: {n: counted.result}")  # fmt: skip
    words = ["p.yaml", "--idempotency-key", "monday", "-o", "json"]
    first, second = (json.loads(project.dfrun(*words)[1]) for _ in range(2))
    assert (first["outputs"], second["outputs"]) == ({"n": 1}, {"n": 1})
    assert first["run_id"] == second["run_id"] and second["steps"]["item"]["state"] == "succeeded"
    code, out, _ = project.dfrun(*words, "-p", "stock=2")
    assert (code, json.loads(out)["error"]["code"]) == (2, "DF444")
    assert json.loads(project.dfrun("p.yaml", "-o", "json")[1])["outputs"] == {"n": 2}


def test_a_changed_file_is_told_and_a_changed_finished_step_refused(project: Project) -> None:
    project.write(DIES, tail=OUT)
    project.dfrun("p.yaml", "--run-id", "r1")
    project.write(DIES.replace("$inc: 10", "$inc: 20").replace("stock: 5", "stock: 6"), tail=OUT)
    code, _, err = project.dfrun("resume", "r1", "--use-current")
    assert code == 2 and "DF446 finished steps have changed: item" in err
    project.write(DIES.replace("$inc: 10", "$inc: 20"), tail=OUT)
    assert project.dfrun("resume", "r1", "--use-current")[0] == 0
    assert project.rows("SELECT stock FROM item") == [(25,)]


def test_a_run_goes_on_as_it_began_whatever_became_of_its_file(project: Project) -> None:
    project.write(DIES, tail=OUT)
    project.dfrun("p.yaml", "--run-id", "r1")
    project.write(DIES.replace("$inc: 10", "$inc: 20"), tail=OUT)
    code, _, err = project.dfrun("resume", "r1")
    assert code == 0 and "changed since the run began: more" in err
    assert project.rows("SELECT stock FROM item") == [(15,)]


def test_a_file_that_changed_under_a_run_is_refused(project: Project) -> None:
    (project.folder / "rows.csv").write_text("sku,stock\na,1\nb,2\n")
    project.write("""
        read: {node: csv.read, with: {path: rows.csv, model: Item}}
        load: {node: Item.bulk_create, inputs: {data: read.rows}}
        dies: {node: python.call, with: {function: "work:once", flag: died}, inputs: {x: read.count}, after: load}
        again: {node: Item.bulk_upsert, with: {key: [sku]}, inputs: {data: read.rows}, after: dies}
        """, tail="outputs: {count: read.count, given: dies.result}")  # fmt: skip
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == -signal.SIGKILL
    before = (project.folder / "rows.csv").read_text()
    (project.folder / "rows.csv").write_text(before + "c,3\n")
    code, _, err = project.dfrun("resume", "r1")
    assert code == 1 and "DF553" in err and "rows.csv' has changed since the run read it" in err
    (project.folder / "rows.csv").write_text(before)  # the same text under a new time is the same file
    code, out, _ = project.dfrun("resume", "r1", "-o", "json")
    assert (code, json.loads(out)["outputs"]) == (0, {"count": 2, "given": 2})
    assert project.rows("SELECT sku, stock FROM item ORDER BY sku") == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_a_run_that_is_resumed(project: Project, number: signal.Signals) -> None:
    project.write("""
        first: {node: Item.create, with: {sku: a}}
        slow: {node: python.call, with: {function: "work:slow", seconds: 1}, after: first}
        last: {node: Item.create, with: {sku: b}, after: slow}
        """)  # fmt: skip
    process = project.start("p.yaml", "--run-id", "r1", "-o", "jsonl")
    wait_until(lambda: '"step_started", "step": "slow"' in process.out.read_text())
    os.kill(process.pid, number)
    assert process.wait() == {signal.SIGINT: 130}.get(number, 143)
    assert json.loads(process.out.read_text().splitlines()[-1])["state"] == "interrupted"
    assert project.rows(f"SELECT status FROM {project.ledger('runs')}") == [("interrupted",)]
    assert project.rows("SELECT sku FROM item") == [("a",)]
    assert project.dfrun("resume", "r1")[0] == 0
    assert project.rows("SELECT sku FROM item ORDER BY sku") == [("a",), ("b",)]


def test_cancelling_reaches_the_process_and_marks_what_nobody_runs(project: Project) -> None:
    project.write(f"""
        slow: {call("waits", file="go")}
        last: {{node: Item.create, with: {{sku: b}}, after: slow}}
        """)
    process = project.start("p.yaml", "--run-id", "r1", "-o", "jsonl", DFRUN_LEASE_SECONDS="6")
    wait_until(lambda: '"step_started"' in process.out.read_text())
    assert "asked run r1 to stop" in project.dfrun("runs", "cancel", "r1")[1]
    wait_until(lambda: "cancelled" in process.out.read_text(), 30)
    (project.folder / "go").touch()
    assert process.wait() == 1
    assert project.rows("SELECT sku FROM item") == []
    project.write(DIES)
    assert project.dfrun("p.yaml", "--run-id", "r2")[0] == -signal.SIGKILL
    cancelled = project.dfrun("runs", "cancel", "r2")
    assert "nobody was running it" in cancelled[1], cancelled
    statuses = project.rows(f"SELECT run_id, status FROM {project.ledger('runs')} ORDER BY run_id")
    assert statuses == [("r1", "cancelled"), ("r2", "cancelled")]
    assert project.dfrun("resume", "r2")[0] == 2


def test_pruning_forgets_what_ended_and_keeps_what_may_go_on(project: Project) -> None:
    project.write("item: {node: Item.upsert, with: {sku: a, key: [sku]}}")
    project.dfrun("p.yaml", "--run-id", "r1")
    project.write(DIES.replace("sku: a", "sku: c"))
    project.dfrun("p.yaml", "--run-id", "r2")
    assert project.dfrun("runs", "prune", "--older-than", "1h")[1] == "0 runs forgotten\n"
    assert project.dfrun("runs", "prune", "--older-than", "1ms")[1] == "1 run forgotten\n"
    assert project.rows(f"SELECT run_id FROM {project.ledger('runs')}") == [("r2",)]
    assert {run for (run,) in project.rows(f"SELECT run_id FROM {project.ledger('steps')}")} == {"r2"}


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["UPDATE {schema_version} SET version = 99"], "DF650 the run ledger is of version 99"),
        (["ALTER TABLE {steps} DROP COLUMN rows"], "DF651 the ledger was altered: {steps}.rows is missing"),
        (["ALTER TABLE {runs} ADD COLUMN extra integer"], "DF651 the ledger was altered: {runs}.extra does not belong"),
        (["DROP TABLE {attempts}"], "DF651 the ledger's table {attempts} is missing"),
    ],
)
def test_a_ledger_that_is_not_ours_is_refused(project: Project, statements: Sequence[str], message: str) -> None:
    project.write("item: {node: Item.upsert, with: {sku: a, key: [sku]}}")
    project.dfrun("p.yaml", "--run-id", "r1")
    names = {name: project.ledger(name) for name in ("schema_version", "steps", "runs", "attempts")}
    for statement in statements:
        project.rows(statement.format(**names))
    code, _, err = project.dfrun("p.yaml")
    assert code == 3 and message.format(**names) in err


def test_large_outputs_are_kept_beside_the_record(project: Project) -> None:
    (project.folder / "rows.csv").write_text("sku,stock\n" + "".join(f"sku{n},{n}\n" for n in range(30_000)))
    project.write("""
        read: {node: csv.read, with: {path: rows.csv, model: Item}}
        load: {node: Item.bulk_create, inputs: {data: read.rows}, with: {return_ids: true}}
        list: {node: Item.list, with: {order_by: [sku]}, after: load}
        dies: {node: python.call, with: {function: "work:once", flag: died}, inputs: {x: load.ids.count}, after: list}
        write: {node: csv.write, with: {path: out.csv}, inputs: {rows: list.rows}, after: dies}
        """, tail="outputs: {given: dies.result, written: write.count}")  # fmt: skip
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == -signal.SIGKILL
    assert project.rows(f"SELECT count(*) FROM {project.ledger('output_chunks')}")[0][0] > 3
    project.rows("DELETE FROM item WHERE sku = 'sku1'")  # what was read stays what was read
    code, out, _ = project.dfrun("resume", "r1", "-o", "json")
    assert (code, json.loads(out)["outputs"]) == (0, {"given": 30_000, "written": 30_000})
    assert len((project.folder / "out.csv").read_text().splitlines()) == 30_001


def test_looking_for_runs_leaves_no_file_behind(tmp_path: Path, warm: Warm) -> None:
    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    assert project.dfrun("runs", "list") == (0, "no runs are recorded here\n", "")
    assert "DF441" in project.dfrun("runs", "show", "r1")[2]
    assert not (tmp_path / "test.db").exists()


def test_without_a_ledger_nothing_is_recorded(project: Project) -> None:
    project.write("item: {node: Item.create, with: {sku: a}}", head="ledger: off")
    assert project.dfrun("p.yaml")[0] == 0
    assert project.dfrun("runs", "list")[1] == "no runs are recorded here\n"
    assert project.rows("SELECT sku FROM item") == [("a",)]


def test_a_run_whose_process_was_paused_is_taken_over_and_commits_nothing(project: Project) -> None:
    project.write("""
        first: {node: Item.create, with: {sku: a}}
        slow: {node: python.call, with: {function: "work:slow", seconds: 1.0}, after: first}
        last: {node: Item.update, with: {filter: {sku: a}, update: {stock: {$inc: 1}}}, after: slow}
        """)
    paused = project.start("p.yaml", "--run-id", "r1", "-o", "jsonl", DFRUN_LEASE_SECONDS="3")
    wait_until(lambda: '"step_started", "step": "slow"' in paused.out.read_text())
    os.kill(paused.pid, signal.SIGSTOP)
    # on another host the process could not be seen; the lease is all there is
    live = project.ledger("run_live")
    project.rows(f"UPDATE {live} SET host = 'elsewhere'")
    wait_until(lambda: "interrupted" in project.dfrun("runs", "list", DFRUN_LEASE_SECONDS="3")[1])
    assert project.dfrun("resume", "r1", DFRUN_LEASE_SECONDS="3")[0] == 0
    os.kill(paused.pid, signal.SIGCONT)
    assert paused.wait() == 3
    out = paused.out.read_text()
    assert "DF550" in out
    assert json.loads(out.splitlines()[-1])["state"] == "taken_over"
    assert project.rows("SELECT stock FROM item") == [(1,)]
    assert project.rows(f"SELECT status FROM {project.ledger('runs')}") == [("succeeded",)]


def test_of_two_that_resume_one_goes_on(project: Project) -> None:
    project.write(DIES, tail=OUT)
    project.dfrun("p.yaml", "--run-id", "r1")
    both = [project.start("resume", "r1") for _ in range(2)]
    codes = sorted(process.wait() for process in both)
    assert codes in ([0, 2], [0, 3])
    assert project.rows("SELECT stock FROM item") == [(15,)]


PAYS = """
item: {node: Item.create, with: {sku: a}}
pay:
  node: python.call
  with: {function: "work:pay", external: true, book: book.txt, flag: died}
  after: item
last: {node: Item.create, with: {sku: b}, after: pay}
"""


def test_an_act_whose_outcome_is_unknown_waits_for_its_user(project: Project) -> None:
    project.write(PAYS, tail="outputs: {answer: pay.result}")
    book = project.folder / "book.txt"
    for run, words, lines in (
        ("r1", ["--redo", "pay"], 2),
        ("r2", ["--mark-done", "pay", "--with-output", "{result: cash}"], 1),
    ):
        project.rows("DELETE FROM item") if run == "r2" else None
        (project.folder / "died").unlink(missing_ok=True)
        book.unlink(missing_ok=True)
        assert project.dfrun("p.yaml", "--run-id", run)[0] == -signal.SIGKILL
        code, out, _ = project.dfrun("resume", run, "-o", "json")
        told = json.loads(out)
        assert (code, told["state"], told["steps"]["pay"]["state"]) == (5, "needs_decision", "undecided")
        assert told["error"]["code"] == "DF554" and f"dfrun resume {run} --redo pay" in told["error"]["fix"]
        assert "needs_decision" in project.dfrun("runs", "list")[1]
        assert "--mark-done pay" in project.dfrun("runs", "show", run, "--why", "pay")[1]
        assert project.dfrun("resume", run, "--redo", "item")[0] == 2
        assert "DF449" in project.dfrun("resume", run, "--mark-done", "pay")[2]
        code, out, _ = project.dfrun("resume", run, *words, "-o", "json")
        assert (code, json.loads(out)["outputs"]) == (0, {"answer": "paid" if run == "r1" else "cash"})
        assert book.read_text() == f"{run}:pay\n" * lines
        assert project.rows("SELECT sku FROM item ORDER BY sku") == [("a",), ("b",)]


def test_an_idempotent_act_is_done_again_with_the_same_key(project: Project) -> None:
    project.write(PAYS.replace("external: true", "external: true, idempotent: true"))
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == -signal.SIGKILL
    assert project.dfrun("resume", "r1")[0] == 0
    assert (project.folder / "book.txt").read_text() == "r1:pay\nr1:pay\n"


def test_an_act_without_an_answer_is_not_tried_again(project: Project) -> None:
    late = PAYS.replace("flag: died", "late: true") + "  retry: {max: 3, on: [transient, error, timeout]}\n"
    project.write(late.replace("last: {node: Item.create, with: {sku: b}, after: pay}\n", ""))
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == 5
    assert (project.folder / "book.txt").read_text() == "r1:pay\n"


def test_a_database_that_refuses_what_was_recorded_leaves_a_run_to_resume(
    tmp_path: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from sqlalchemy.exc import OperationalError

    from runner import api
    from runner.ledger.records import Ledger

    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    project.write(DIES, tail=OUT)
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == -signal.SIGKILL
    monkeypatch.chdir(tmp_path)

    async def refused(self: Ledger, record: object) -> object:
        error = sqlite3.OperationalError("database disk image is malformed")
        error.sqlite_errorname = "SQLITE_CORRUPT"
        raise OperationalError("SELECT", {}, error)

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "value", refused)
        result = asyncio.run(api.resume_run("r1", api.RunOptions(), api.Decisions()))
    assert (result.state, result.problems[0].fix) == ("failed", "dfrun resume r1")
    assert project.dfrun("resume", "r1")[0] == 0
    assert project.rows("SELECT sku, stock FROM item") == [("a", 15)]


def test_a_step_takes_three_round_trips(postgres_url: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, fence and record; the statement; output, mark and COMMIT. What a connection prepares once is no more."""
    from runner import api
    from runner.dialects.session import CoreSession

    (tmp_path / "models.yaml").write_text(MODELS)
    lines = "\n".join(f"  s{n}: {{node: Item.create, with: {{sku: s{n}}}}}" for n in range(12))
    (tmp_path / "p.yaml").write_text(f"name: p\nsteps:\n{lines}\n")
    counts: dict[str, int] = {}

    def counted(name: str) -> None:
        original = getattr(CoreSession, name)

        async def call(self: CoreSession, *words: object, **more: object) -> object:
            counts[name] = counts.get(name, 0) + 1
            return await original(self, *words, **more)

        monkeypatch.setattr(CoreSession, name, call)

    with empty_database(postgres_url) as url:
        (tmp_path / "dfrun.yaml").write_text(f"database: {json.dumps(url)}\nmigrate: auto\nparallel: 1\n")
        asyncio.run(api.run_file(tmp_path / "p.yaml", api.RunOptions()))

        async def trips(steps: int) -> int:
            text = "\n".join(f"  t{n}: {{node: Item.create, with: {{sku: t{steps}-{n}}}}}" for n in range(steps))
            (tmp_path / "p.yaml").write_text(f"name: p\nsteps:\n{text}\n")
            counts.clear()
            await api.run_file(tmp_path / "p.yaml", api.RunOptions())
            return sum(counts.values())

        for name in ("send", "fetch", "execute"):
            counted(name)
        few, many = asyncio.run(trips(5)), asyncio.run(trips(15))
    assert (many - few) / 10 <= 3
