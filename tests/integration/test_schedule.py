"""A schedule's slots on a real database: each is run once, missed ones are told, an interrupted one is gone on with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from typing import Any

import pytest
from durable import Project, call, wait_until

YEARLY = 'schedule: {cron: "@yearly", timezone: Europe/Berlin%s}'
NEWEST = f"{datetime.now(UTC).year - 1}-12-31T23:00:00Z"
COUNT = "item: {node: Item.create, with: {sku: a}}\n"


def fire(project: Project, *words: str, code: int = 0, **env: str) -> dict[str, Any]:
    found, out, err = project.dfrun("p.yaml", "--due", "-o", "json", *words, **env)
    assert found == code, (out, err)
    told: dict[str, Any] = json.loads(out)
    return told


def slots(project: Project) -> list[str]:
    return [row[0] for row in project.rows(f"select slot from {project.ledger('runs')} order by slot")]


def ran_before(project: Project, year: int) -> None:
    """As if the one slot that ran were that of a year long past."""
    project.rows(f"update {project.ledger('runs')} set slot = '{year - 1}-12-31T23:00:00Z'")


def years(told: dict[str, Any]) -> list[int]:
    return [datetime.fromisoformat(slot).year + 1 for slot in told["slot"]["missed"]]


def test_a_slot_is_run_once(project: Project) -> None:
    moment = "at: {node: text.format, with: {template: '{at} {day}'}, inputs: {at: run.scheduled_at, day: run.scheduled_date}}"
    project.write(COUNT + moment, YEARLY % "", "outputs: {at: at.text}")
    told = fire(project)
    assert told["state"] == "succeeded", told
    assert datetime.fromisoformat(told["slot"]["at"]) == datetime.fromisoformat(NEWEST)
    assert NEWEST[:10] in told["outputs"]["at"]
    assert f"{datetime.now(UTC).year}-01-01" in told["outputs"]["at"]  # the day in Berlin
    again = fire(project)
    assert (again["run_id"], again["state"], again["outputs"]) == (told["run_id"], "succeeded", told["outputs"])
    assert "of this slot succeeded before" in again["slot"]["note"]
    assert project.rows("select count(*) from item") == [(1,)]
    assert slots(project) == [NEWEST]
    assert project.dfrun("p.yaml")[0] == 1  # by hand it runs whenever one says so, and the item is there


def test_many_at_once_run_a_slot_once(project: Project) -> None:
    project.write(COUNT + f"slow: {call('slow', seconds=0.5)}", YEARLY % "")
    assert project.dfrun("migrate", "apply", ".")[0] in (0, 2)
    calls = [project.start("p.yaml", "--due") for _ in range(8)]
    told = [(each.wait(), each.out.read_text(), each.err.read_text()) for each in calls]
    assert [code for code, _, _ in told] == [0] * 8, told
    assert project.rows("select count(*) from item") == [(1,)]
    assert slots(project) == [NEWEST]


def test_a_slot_whose_process_was_killed_is_gone_on_with(project: Project) -> None:
    dies = "dies: {node: python.call, with: {function: 'work:once', flag: died}, inputs: {x: item.stock}}"
    project.write(COUNT + dies, YEARLY % "")
    assert project.dfrun("p.yaml", "--due")[0] == -9
    told = fire(project)
    assert told["state"] == "succeeded", told
    assert project.rows("select count(*) from item") == [(1,)]
    assert slots(project) == [NEWEST]


def test_a_slot_that_runs_is_left_to_its_process(project: Project) -> None:
    project.write(COUNT + f"waits: {call('waits', file='go')}", YEARLY % "")
    first = project.start("p.yaml", "--due")
    wait_until(lambda: bool(_runs(project)))
    told = fire(project)
    assert (told["state"], told["slot"]["note"].partition(" of")[2]) == ("skipped", " this slot is going on")
    (project.folder / "go").touch()
    assert first.wait() == 0


def _runs(project: Project) -> list[Any]:
    try:
        return project.rows(f"select status from {project.ledger('runs')}")
    except Exception:  # no table yet
        return []


def test_a_failed_slot_is_told_and_not_run_again(project: Project) -> None:
    project.write(f"fails: {call('fail_once', flag='failed')}", YEARLY % "")
    first = fire(project, code=1)
    again = fire(project, code=1)
    assert (again["run_id"], again["state"]) == (first["run_id"], "failed")
    assert project.dfrun("resume", first["run_id"])[0] == 0
    assert fire(project)["state"] == "succeeded"


@pytest.mark.parametrize("missed", ["", ", missed: skip"])
def test_missed_slots_are_told(project: Project, missed: str) -> None:
    this = datetime.now(UTC).year
    project.write(f"n: {call('count', file='n')}", YEARLY % missed)
    fire(project)
    ran_before(project, this - 3)
    told = fire(project)
    assert (told["run_id"], told["state"], years(told)) == (None, "skipped", [this - 2, this - 1, this])
    text = project.dfrun("p.yaml", "--due")[1]
    assert "missed, not run: 3 slots" in text, text
    assert f"{this - 1}-01-01 00:00 Europe/Berlin" in text
    assert (project.folder / "n").read_text() == "1"


def test_latest_runs_the_newest_of_them(project: Project) -> None:
    this = datetime.now(UTC).year
    project.write(f"n: {call('count', file='n')}", YEARLY % ", missed: latest")
    fire(project)
    ran_before(project, this - 3)
    assert years(fire(project)) == [this - 2, this - 1]
    assert (project.folder / "n").read_text() == "2"
    assert slots(project) == [f"{this - 4}-12-31T23:00:00Z", NEWEST]
    assert years(fire(project)) == []


def test_all_runs_each_in_order_up_to_a_limit(project: Project) -> None:
    this = datetime.now(UTC).year
    project.write(f"n: {call('count', file='n')}", YEARLY % ", missed: all, max_missed: 3")
    fire(project)
    ran_before(project, this - 5)
    told = fire(project)
    assert years(told) == [this - 4, this - 3]
    assert [each["at"][:4] for each in told["slot"]["beside"]] == [str(this - 3), str(this - 2)]
    assert slots(project)[1:] == [f"{year - 1}-12-31T23:00:00Z" for year in (this - 2, this - 1, this)]


def test_a_failing_slot_does_not_stop_those_after_it(project: Project) -> None:
    this = datetime.now(UTC).year
    project.write(f"n: {call('count', file='n')}", YEARLY % ", missed: all")
    fire(project)
    ran_before(project, this - 2)
    project.write(f"fails: {call('fail_once', flag='failed')}", YEARLY % ", missed: all")
    told = fire(project, code=1)
    assert told["slot"]["at"].startswith(str(this - 2))
    assert [each["state"] for each in told["slot"]["beside"]] == ["succeeded"]


def test_tenants_have_slots_of_their_own(project: Project) -> None:
    project.write(f"n: {call('count', file='n')}", YEARLY % "")
    runs = {fire(project, "--tenant", name)["run_id"] for name in ("acme", "globex", "acme")}
    assert len(runs) == 2
    assert slots(project) == [NEWEST, NEWEST]
    assert (project.folder / "n").read_text() == "2"


def test_the_schedule_says_what_happens_beside_another_run(project: Project) -> None:
    project.write(f"waits: {call('waits', file='go')}", YEARLY % ", overlap: skip")
    other = project.start("p.yaml")
    wait_until(lambda: bool(_runs(project)))
    told = fire(project)
    assert told["state"] == "skipped"
    project.write(f"waits: {call('waits', file='go')}", YEARLY % "")
    assert fire(project, code=3)["error"]["code"] == "DF440"
    project.write(f"waits: {call('waits', file='go')}", YEARLY % ", overlap: wait")
    waiting = project.start("p.yaml", "--due")
    wait_until(lambda: "waiting for its end" in waiting.err.read_text())
    (project.folder / "go").touch()
    assert (other.wait(), waiting.wait()) == (0, 0)


@pytest.mark.parametrize(
    "words", [("--dry-run",), ("--only", "n"), ("--run-id", "r1"), ("--idempotency-key", "k")], ids=lambda w: w[0]
)
def test_what_means_another_run_is_refused(project: Project, words: tuple[str, ...]) -> None:
    project.write(f"n: {call('plain', x=1)}", YEARLY % "")
    code, _, err = project.dfrun("p.yaml", "--due", *words)
    assert (code, "DF452" in err, words[0] in err) == (2, True, True), err


def test_without_a_schedule_nothing_is_due(project: Project) -> None:
    project.write(f"n: {call('plain', x=1)}")
    code, _, err = project.dfrun("p.yaml", "--due")
    assert (code, "DF451" in err) == (2, True), err


def test_the_newest_slot_outlives_pruning(project: Project) -> None:
    project.write(f"n: {call('count', file='n')}", YEARLY % "")
    fire(project)
    assert project.dfrun("runs", "prune", "--older-than", "1ms")[:2] == (0, "0 runs forgotten\n")
    assert "before" in fire(project)["slot"]["note"]
    assert (project.folder / "n").read_text() == "1"


@pytest.mark.parametrize("years_off", [-7, 7])
def test_the_databases_clock_says_what_is_due(
    years_off: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose own clock is wrong runs the same slot."""
    from runner import api
    from runner.ledger import runs
    from runner.run import firing, launch
    from runner.schedule import due, slots

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            true = datetime.now(tz)
            return true.replace(year=true.year + years_off, day=1)

    for module in (runs, firing, launch, due, slots):
        if hasattr(module, "datetime"):
            monkeypatch.setattr(module, "datetime", Wrong)
    monkeypatch.chdir(project.folder)
    project.write(COUNT, YEARLY % "")
    result = asyncio.run(api.run_file(project.folder / "p.yaml", api.RunOptions(due=True)))
    assert (result.state, [row[0] for row in project.rows(f"select slot from {project.ledger('runs')}")]) == (
        "succeeded",
        [NEWEST],
    )


def test_a_loop_fires_what_is_due_and_a_wrong_file_stops_no_other(project: Project) -> None:
    project.write(COUNT, YEARLY % "")
    (project.folder / "wrong.yaml").write_text(
        "name: w\nschedule: {cron: '61 * * * *'}\nsteps: {a: {node: log.info}}\n"
    )
    failing = "name: fails\nschedule: {cron: '@yearly'}\nsteps:\n  a: " + call("fail_once", flag="never") + "\n"
    (project.folder / "fails.yaml").write_text(failing)
    assert project.dfrun("migrate", "apply", ".")[0] in (0, 2)
    loop = project.start("schedule", "run", ".")
    wait_until(lambda: {"p: exit status 0", "fails: exit status 1"} <= {
        line.partition("UTC  ")[2] for line in loop.err.read_text().splitlines()}, 60)  # fmt: skip
    assert "DF116 minute: '61' is none" in loop.err.read_text()
    assert project.rows("select sku from item") == [("a",)]
    code, out, _ = project.dfrun("schedule", "list", "p.yaml", "-o", "json")
    [listed] = json.loads(out)
    assert (code, listed["pipeline"], listed["last_run"]["state"]) == (0, "p", "succeeded")
    (project.folder / "slow.yaml").write_text(
        f"name: slow\nschedule: {{cron: '@yearly'}}\nsteps:\n  a: {call('slow', seconds=60)}\n"
    )
    os.kill(loop.pid, signal.SIGTERM)
    assert loop.wait() == 0


def test_a_loop_that_is_stopped_lets_its_runs_stop_in_order(project: Project) -> None:
    project.write(
        f"it: {call('waits', file='go')}\nlast: {{node: Item.create, with: {{sku: a}}, after: it}}", YEARLY % ""
    )
    loop = project.start("schedule", "run", ".")
    states = f"select status from {project.ledger('runs')}"
    wait_until(lambda: "running" in project.dfrun("runs", "list")[1], 30)
    os.kill(loop.pid, signal.SIGTERM)
    (project.folder / "go").touch()
    assert loop.wait() == 0
    assert project.rows(states) == [("interrupted",)]
    assert "p: exit status 143" in loop.err.read_text()
