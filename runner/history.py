"""What the ledger tells of runs afterwards: all of them in a list, one with its steps, one step with its reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from runner.errors import DefinitionError, Problem, did_you_mean
from runner.ledger.runs import RunRow, attempts_of, find_run
from runner.ledger.tables import ledger_tables
from runner.loading import load_recorded
from runner.plan import Plan, build_plan
from runner.run.results import UndoResult, undo_lines

if TYPE_CHECKING:
    from runner.dialects.store import Store


@dataclass(frozen=True, slots=True)
class StepHistory:
    """One step of a run: `state` as far as it is known, its failed attempts, and when its record was made."""

    name: str
    state: str
    rows: int | None
    attempts: Sequence[Mapping[str, object]]
    error: Mapping[str, Any] | None
    epoch: int | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class History:
    """One run with its steps, in the order of its file. `plan` is None when its text can no longer be read."""

    run: RunRow
    steps: Mapping[str, StepHistory]
    plan: Plan | None
    undo: Mapping[str, UndoResult]
    """What was taken back and what stays, where the run was taken back."""


async def read_history(store: Store, run_id: str) -> History:
    """Everything that is recorded of a run. Raises `DefinitionError` DF441."""
    run = await find_run(store, run_id)
    table = ledger_tables(store.database)["steps"]
    wanted = ("step_id", "status", "seq", "rows", "epoch", "started_at", "finished_at")
    rows = await store.fetch(
        sa.select(*(table.c[n] for n in wanted)).where(
            table.c.run_id == run_id, table.c.kind == "do", table.c.part == ""
        )
    )
    records: dict[str, dict[str, Any]] = {str(row[0]): dict(zip(wanted, row, strict=True)) for row in rows}
    attempts = await attempts_of(store, run_id)
    kept: Mapping[str, Any] = json.loads(run.summary) if run.summary else {}
    summary: Mapping[str, Any] = kept.get("steps", {})
    undo = {name: UndoResult(**told) for name, told in kept.get("undo", {}).items()}
    plan = _plan(run)
    names = [*(plan.steps if plan else ()), *(n for n in (*records, *summary) if not plan or n not in plan.steps)]
    steps = {}
    for name in dict.fromkeys(names):
        failed = [a for a in attempts if a["step_id"] == name]
        record, told = records.get(name, {}), summary.get(name, {})
        steps[name] = StepHistory(
            name, _state(record, told, failed, run), record.get("rows"), failed, told.get("error"),
            record.get("epoch"), record.get("started_at"), record.get("finished_at"),
        )  # fmt: skip
    return History(run, steps, plan, undo)


def _plan(run: RunRow) -> Plan | None:
    try:
        loaded = load_recorded(run.definition, Path(run.folder))
        return build_plan(loaded.graph, loaded.identity, json.loads(run.inputs)["only"])
    except (DefinitionError, OSError):
        return None


def _state(
    record: Mapping[str, Any], told: Mapping[str, Any], failed: Sequence[Mapping[str, object]], run: RunRow
) -> str:
    if record.get("status") == "done" or (record.get("status") == "source" and record["seq"]):
        return "succeeded"
    if told:
        return str(told["state"])
    if record.get("status") == "started":
        return "running" if run.status == "running" else "undecided"
    if run.status == "running":
        return "running or waiting"
    return "failed" if failed else "not run"


# --- in words -----------------------------------------------------------------------------------------------------


def runs_text(runs: Sequence[RunRow]) -> str:
    """A table of runs, newest first."""
    if not runs:
        return "no runs are recorded here"
    width = max(len(run.pipeline) for run in runs)
    wide = max(len(run.run_id) for run in runs)
    lines = []
    for run in runs:
        took = f"{(run.finished_at - run.started_at).total_seconds():.1f} s" if run.finished_at else ""
        began = f"{run.started_at:%Y-%m-%d %H:%M:%S}"
        lines.append(f"{run.run_id:<{wide}}  {run.pipeline:<{width}}  {began}  {took:>9}  {run.status}{_advice(run)}")
    return "\n".join(lines)


def _advice(run: RunRow) -> str:
    return f"  → dfrun resume {run.run_id}" if run.status in ("interrupted", "needs_decision") else ""


def runs_record(run: RunRow) -> dict[str, object]:
    """A run as data."""
    live = run.live
    owner = None if live is None else {"host": live.owner.host, "pid": live.owner.pid,
                                       "beat_age_seconds": round(live.beat_age_seconds, 1)}  # fmt: skip
    return {
        "run_id": run.run_id, "pipeline": run.pipeline, "status": run.status, "started_at": _iso(run.started_at),
        "finished_at": _iso(run.finished_at), "epoch": run.epoch, "trigger": run.trigger,
        "idempotency_key": run.idempotency_key, "owner": owner, "error": json.loads(run.error) if run.error else None,
    }  # fmt: skip


def history_record(history: History) -> dict[str, object]:
    """A run with its steps as data."""
    steps = {
        step.name: {
            "state": step.state, "rows": step.rows, "started_at": _iso(step.started_at),
            "finished_at": _iso(step.finished_at), "epoch": step.epoch, "error": step.error,
            "failed_attempts": [
                {"attempt": a["attempt"], "epoch": a["epoch"], "code": a["code"], "class": a["class"],
                 "sqlstate": a["sqlstate"], "message": a["message"], "waited_ms": a["waited_ms"]}
                for a in step.attempts
            ],
        }
        for step in history.steps.values()
    }  # fmt: skip
    undo = {"undo": {name: asdict(told) for name, told in history.undo.items()}} if history.undo else {}
    return runs_record(history.run) | {"steps": steps} | undo


def history_text(history: History) -> str:
    """A run with its steps."""
    run = history.run
    lines = [
        f"{run.pipeline} {run.run_id}: {run.status}{_advice(run)}",
        f"  began {run.started_at:%Y-%m-%d %H:%M:%S} UTC",
    ]
    if run.finished_at:
        lines[-1] += f", ended {run.finished_at:%Y-%m-%d %H:%M:%S} UTC"
    if run.epoch > 1:
        lines[-1] += f", taken up {run.epoch - 1} time{'s' if run.epoch > 2 else ''} after its start"
    if run.live is not None:
        lines.append(f"  run by process {run.live.owner.pid} on {run.live.owner.host}")
    if run.error:
        error = json.loads(run.error)
        lines.append(f"  {error['code']} {error['what']}")
    width = max((len(name) for name in history.steps), default=0)
    for step in history.steps.values():
        counted = "" if step.rows is None else f"{step.rows:,} row{'' if step.rows == 1 else 's'}"
        tried = f"  {len(step.attempts)} failed attempt{'s' if len(step.attempts) > 1 else ''}" if step.attempts else ""
        lines.append(f"  {step.name:<{width}}  {step.state:<10} {counted:>14}{tried}".rstrip())
    return "\n".join([*lines, *(["undo", *undo_lines(history.undo)] if history.undo else [])])


def why_text(history: History, name: str) -> str:
    """Why a step is where it is. Raises `DefinitionError` DF401 when there is no such step."""
    step = history.steps.get(name)
    if step is None:
        fix = did_you_mean(name, history.steps)
        raise DefinitionError(Problem("DF401", f"--why: there is no step {name!r}", None, "", fix))
    lines = [f"{name}: {step.state}"]
    if step.finished_at:
        lines.append(f"  recorded {step.finished_at:%Y-%m-%d %H:%M:%S} UTC, by process number {step.epoch} of this run")
    for a in step.attempts:
        state = f", SQLSTATE {a['sqlstate']}" if a["sqlstate"] else ""
        after = f"; tried again after {a['waited_ms']} ms" if a["waited_ms"] else ""
        lines.append(f"  attempt {a['attempt']} of process {a['epoch']}: {a['code']} {a['message']}")
        lines.append(f"    class {a['class']}{state}{after}")
    planned = history.plan.steps.get(name) if history.plan else None
    waits = planned.waits if planned else ()
    states = {wait.upstream: history.steps[wait.upstream].state for wait in waits}
    if step.state == "skipped":
        skipped = [n for n, state in states.items() if state == "skipped"]
        cause = f"{skipped[0]}, whose data it reads, was skipped" if skipped else "its `when` did not hold"
        lines.append(f"  because {cause}")
    elif step.state == "blocked":
        lines += [f"  because {n} {state}" for n, state in states.items() if state not in ("succeeded", "skipped")]
    elif step.state == "undecided":
        resume = f"dfrun resume {history.run.run_id}"
        lines.append(f"  it was begun, and no answer is recorded: {resume} --mark-done {name}, or --redo {name}")
    elif step.state in ("cancelled", "not run", "running or waiting"):
        open_ones = [n for n, state in states.items() if state not in ("succeeded", "skipped")]
        is_going_on = history.run.status == "running"
        nothing = "nothing is missing; it runs or is about to" if is_going_on else "nothing was missing; the run ended"
        lines.append(f"  it waits for {', '.join(open_ones)}" if open_ones else f"  {nothing}")
    elif states:
        lines.append(f"  it ran after {', '.join(states)}")
    return "\n".join(lines)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
