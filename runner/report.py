"""What a user reads: problems as text, as JSON, or as annotations of a forge."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import date, datetime, time, tzinfo
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, TypeGuard

from runner.errors import DfrunError, Problem

if TYPE_CHECKING:
    from runner.audit.verify import Change, Verdict
    from runner.run.results import RunResult, SlotResult, StepResult

Lines = Callable[[str], list[str]]
"""The lines of a file by the name that messages give it; empty where it cannot be read."""


def lines_of(name: str) -> list[str]:
    """The lines of a file; [] where it cannot be read."""
    try:
        return Path(name).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


_WIDEST_LINE = 160
_MOST_PROBLEMS = 20


def problem_text(problem: Problem, lines: list[str]) -> str:
    """The problem with its line and the stretch at fault underlined.

    lines: the whole file, empty when it is not at hand.
    """
    told = [str(problem)]
    place = problem.place
    if place and 0 < place.line <= len(lines):
        number, text, column = str(place.line), lines[place.line - 1], place.column
        if len(text) > _WIDEST_LINE:
            start = max(0, column - _WIDEST_LINE // 2)
            text, column = "…" + text[start : start + _WIDEST_LINE], column - start + 1
        told.append(f"  {number} | {text}")
        told.append(f"  {' ' * len(number)} | {' ' * (column - 1)}{'^' * max(1, place.width)}")
    told += [f"  {word}: {text}" for word, text in (("why", problem.why), ("fix", problem.fix)) if text]
    return "\n".join(told)


def problems_text(problems: Iterable[Problem], lines_of: Lines) -> str:
    """The problems in their order, the first twenty of them: the rest follow from those more often than not."""
    found = list(problems)
    told = [problem_text(p, lines_of(p.place.file) if p.place else []) for p in found[:_MOST_PROBLEMS]]
    if len(found) > _MOST_PROBLEMS:
        told.append(f"… and {len(found) - _MOST_PROBLEMS:,} more; -o json of validate tells all of them")
    return "\n".join(told)


def problems_json(problems: Iterable[Problem]) -> str:
    """One document: `{"problems": [{"code", "what", "file", "line", "column", "why", "fix", "severity"}]}`."""
    return json.dumps({"problems": [_record(p) for p in problems]}, ensure_ascii=False, indent=2)


def problems_github(problems: Iterable[Problem]) -> str:
    """One workflow command a problem."""
    told = []
    for problem in problems:
        place = problem.place
        where = f" file={place.file},line={place.line},col={place.column}" if place else ""
        text = " — ".join(t for t in (f"{problem.code} {problem.what}", problem.why, problem.fix) if t)
        told.append(f"::{problem.severity}{where}::{text.replace('%', '%25').replace(chr(10), '%0A')}")
    return "\n".join(told)


def _record(problem: Problem) -> Mapping[str, object]:
    place = problem.place
    return {
        "code": problem.code, "what": problem.what, "file": place.file if place else None,
        "line": place.line if place else None, "column": place.column if place else None,
        "why": problem.why, "fix": problem.fix, "severity": problem.severity,
    }  # fmt: skip


def problems_sarif(problems: Iterable[Problem]) -> str:
    """One SARIF 2.1.0 log, as code scanners read it."""
    found = list(problems)
    results = []
    for problem in found:
        text = ". ".join(t for t in (problem.what, problem.why, problem.fix) if t)
        result: dict[str, object] = {"ruleId": problem.code, "level": problem.severity, "message": {"text": text}}
        if problem.place:
            region = {"startLine": problem.place.line, "startColumn": problem.place.column}
            where = {"artifactLocation": {"uri": problem.place.file}, "region": region}
            result["locations"] = [{"physicalLocation": where}]
        results.append(result)
    rules = [{"id": code} for code in sorted({p.code for p in found})]
    run = {"tool": {"driver": {"name": "dfrun", "rules": rules}}, "results": results}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, ensure_ascii=False, indent=2)


# --- runs -----------------------------------------------------------------------------------------------------

_MARKS = {
    "succeeded": "✓", "failed": "✗", "timed_out": "✗", "skipped": "-", "blocked": "-", "cancelled": "-",
    "undecided": "?",
}  # fmt: skip
_MOST_STEPS, _MOST_ROWS, _WIDEST_CELL, _MOST_MISSED = 60, 10, 40, 10


def run_text(result: RunResult) -> str:
    """How a run ended: its steps (all of a short run, else only those that did not succeed), then its outputs."""
    steps = list(result.steps.items())
    shown = steps if len(steps) <= _MOST_STEPS else [(n, s) for n, s in steps if s.state != "succeeded"]
    width = max((len(name) for name, _ in shown), default=0)
    dry = " (dry run: all of it is rolled back)" if result.is_dry else ""
    took = f" in {_seconds(result.duration_ms)}" if result.steps or result.slot is None else ""
    told = [f"{result.pipeline} {_STATES[result.state]}{took}{dry}"]
    if result.slot is not None:
        told += _slot_lines(result.slot)
    for name, step in shown[:_MOST_STEPS]:
        counted = "" if step.rows is None else f"{step.rows:,} row{'' if step.rows == 1 else 's'}"
        tried = f"  {step.attempts} attempts" if step.attempts > 1 else ""
        note = "" if step.state == "succeeded" else f"  {step.state.replace('_', ' ')}"
        note = "  recorded before" if step.is_recorded and step.state == "succeeded" else note
        took = _seconds(step.duration_ms) if step.attempts else ""
        told.append(f"  {_MARKS[step.state]} {name:<{width}}  {counted:>14}  {took:>8}{tried}{note}".rstrip())
    if len(steps) > len(shown):
        told.append(f"  ✓ {len(steps) - len(shown):,} steps succeeded")
    if result.left_out:
        told.append("not done in a dry run")
        told += [f"  {o.step}: {o.what}{f' ({o.times:,} times)' if o.times > 1 else ''}" for o in result.left_out]
    if result.audit_head is not None and not result.is_dry:
        told.append(f"  audit head {result.audit_head}")
    if result.undo:
        from runner.run.results import undo_lines  # `validate` needs no results

        told += ["undo", *undo_lines(result.undo)]
    if result.outputs:
        told.append("outputs")
        for name, value in result.outputs.items():
            told += [f"  {name}:", *_table(value)] if _is_table(value) else [f"  {name}: {_shown(value)}"]
    return "\n".join(told)


def _slot_lines(slot: SlotResult) -> list[str]:
    """The slot of a firing, and what it did not run."""
    told = [f"  slot {_slot(slot.at, slot.zone)}", f"  {slot.note}"][: 2 if slot.note else 1]
    told += [f"  also {_slot(at, slot.zone)}: {run_id} {_STATES[state]}" for at, run_id, state in slot.beside]
    if slot.missed:
        count = f"{len(slot.missed):,}{'' if slot.is_counted else ' or more'}"
        told.append(f"  missed, not run: {count} slot{'' if len(slot.missed) == 1 else 's'}")
        told += [f"    {_slot(at, slot.zone)}" for at in slot.missed[-_MOST_MISSED:]]
        if len(slot.missed) > _MOST_MISSED:
            told.append(f"    and {len(slot.missed) - _MOST_MISSED:,} before them")
    return told


def _slot(at: datetime, zone: tzinfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M} {zone}"


_STATES = {
    "succeeded": "succeeded", "failed": "failed", "interrupted": "was interrupted", "timed_out": "ran out of time",
    "cancelled": "was cancelled", "needs_decision": "waits for a decision", "taken_over": "was taken over",
    "silent": "lost its database", "skipped": "was skipped", "undone": "was taken back",
    "partly_undone": "was taken back in part",
    "undo_failed": "could not be taken back",
}  # fmt: skip


def run_json(result: RunResult, *, one_line: bool = False) -> str:
    """The result as one document: run_id, pipeline, state, outputs, error, steps. Decimals are text, so that none is
    rounded; instants are ISO 8601 in UTC."""
    steps = {
        name: {
            "state": step.state, "attempts": step.attempts, "rows": step.rows, "duration_ms": step.duration_ms,
            "error": _error(name, step),
        }
        for name, step in result.steps.items()
    }  # fmt: skip
    failed = next((_error(name, step) for name, step in result.steps.items() if step.state in _FAILED), None)
    document: dict[str, object] = {
        "run_id": result.run_id or None, "pipeline": result.pipeline, "state": result.state, "outputs": result.outputs,
        "error": _record(result.problem) if result.problem else failed, "steps": steps,
    }  # fmt: skip
    if result.audit_head is not None and not result.is_dry:
        document["audit_head"] = result.audit_head
    if result.undo:
        document["undo"] = {name: asdict(told) for name, told in result.undo.items()}
    if result.slot is not None:
        slot = result.slot
        document["slot"] = {
            "at": slot.at, "timezone": str(slot.zone), "note": slot.note or None, "missed": list(slot.missed),
            "beside": [{"at": at, "run_id": run_id, "state": state} for at, run_id, state in slot.beside],
        }  # fmt: skip
    if result.is_dry:
        left_out = [{"step": o.step, "what": o.what, "times": o.times} for o in result.left_out]
        document |= {"dry_run": True, "left_out": left_out}
    if one_line:
        document = {"v": 1, "event": "summary"} | document
    return json.dumps(document, ensure_ascii=False, indent=None if one_line else 2, default=_json)


def verdict_text(verdict: Verdict) -> str:
    """What verifying the audit trail found: each chain's head, and what is wrong."""
    told = [f"{verdict.entries:,} entries, {verdict.rows:,} changed rows"]
    told += [f"  head {head}{f'  {tenant}' if tenant else ''}" for tenant, head in verdict.heads]
    told += [f"  ✗ {fault}" for fault in verdict.faults]
    return "\n".join([*told, "the trail is not whole" if verdict.faults else "the trail is whole"])


def change_text(change: Change, hidden: Collection[str]) -> str:
    """One change of a row; hidden: fields whose values are shown to nobody."""
    when = change.at.isoformat(" ", "seconds") if change.at else "unknown"
    by = f"by {change.actor}, run {change.run_id}, step {change.step_id}" if change.run_id else "by no step of dfrun"
    told = [f"{when}  {change.action}  {by}"]
    if change.is_erased:
        told.append("  (erased)")
    for name, (before, after) in change.fields.items():
        if name in hidden:
            told.append(f"  {name}: (hidden)")
        elif change.action == "update":
            told.append(f"  {name}: {_plain(before)} → {_plain(after)}")
        else:
            told.append(f"  {name}: {_plain(after if change.action == 'insert' else before)}")
    return "\n".join(told)


def _plain(value: object) -> str:
    return str(value) if isinstance(value, Decimal) else _shown(value)


def refusal_json(error: DfrunError) -> str:
    """A run that did not start, in the shape of one that did."""
    document: dict[str, object] = {"run_id": None, "pipeline": None, "state": "refused", "outputs": {}, "steps": {}}
    problems = [_record(problem) for problem in error.problems]
    return json.dumps(document | {"error": problems[0], "problems": problems}, ensure_ascii=False, indent=2)


def exit_status(result: RunResult) -> int:
    """0, 1, 3 (taken over), 4 (failed, and undone), 5 (a decision is needed, or an undo did not work), 75 (every
    failure may pass by itself) or 124 (out of time). A run that was to be taken back: 0, or 5 where something stays."""
    if result.is_asked_to_undo and result.state in ("undone", "partly_undone"):
        return 0 if result.state == "undone" else 5
    by_state = {
        "timed_out": 124, "taken_over": 3, "needs_decision": 5, "silent": 75, "undone": 4, "partly_undone": 1,
        "undo_failed": 5,
    }  # fmt: skip
    if result.state in by_state:
        return by_state[result.state]
    failed = [step for step in result.steps.values() if step.state in _FAILED]
    if not failed:
        return 0 if result.state in ("succeeded", "skipped") else 1
    return 75 if all(step.error_class == "transient" for step in failed) else 1


_FAILED = ("failed", "timed_out", "undecided")


def _error(name: str, step: StepResult) -> Mapping[str, object] | None:
    if step.problem is None:
        return None
    which = {"step": name, "attempt": step.attempts, "class": step.error_class, "sqlstate": step.sqlstate}
    return {**_record(step.problem), **which}


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def _is_table(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) and row for row in value)


def _table(rows: list[dict[str, object]]) -> list[str]:
    """Rows below the names of their columns, numbers to the right, long values cut."""
    names = list(rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows[:_MOST_ROWS]]
    numbers = [all(isinstance(row.get(name), (int, float, Decimal, NoneType)) for row in rows) for name in names]
    widths = [max(len(name), *(len(row[at]) for row in cells)) for at, name in enumerate(names)]
    told = [
        "    "
        + "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numbers, strict=True)).rstrip()
        for row in [names, *cells]
    ]
    return told if len(rows) <= _MOST_ROWS else [*told, f"    … and {len(rows) - _MOST_ROWS:,} more"]


def _cell(value: object) -> str:
    text = "" if value is None else _shown(_json(value) if isinstance(value, (date, time, bytes, Decimal)) else value)
    return text if len(text) <= _WIDEST_CELL else text[: _WIDEST_CELL - 1] + "…"


def _shown(value: object) -> str:
    if isinstance(value, list) and len(value) > _MOST_ROWS:
        return f"{len(value):,} values, the first of them {_shown(value[:3])}"
    if isinstance(value, str):
        # what came out of a database must not steer the terminal
        return value if value.isprintable() else json.dumps(value)
    return json.dumps(value, ensure_ascii=False, default=_json)


def _json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return str(value)
