"""What a run of a pipeline would do: what its tables wait for, what changed since it last ran, and each step in order
with what it touches. Changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.database import Target, choose_database, pending_plan
from runner.errors import DefinitionError
from runner.graph import GraphStep
from runner.ledger.runs import list_runs
from runner.ledger.tables import has_ledger
from runner.loading import Loaded, changed_steps, load, load_recorded, sources_of, written_files
from runner.migrate.plan import MigrationPlan
from runner.migrate.report import headline, plan_document, plan_markdown, plan_text
from runner.plan import Plan, PlannedStep, build_plan
from runner.rehearsal import Rehearsed, can_rehearse, rehearse
from runner.sql.tables import build_tables

if TYPE_CHECKING:
    import sqlalchemy as sa

    from runner.ledger.runs import RunRow
    from runner.sql.filters import Database

_PHASES = {"main": "", "failure": "when others failed", "finally": "last"}


@dataclass(frozen=True, slots=True)
class StepPreview:
    """One step: when it runs, and what it touches. `does` says it in words where that is no table; `inside` are the
    steps of a group or a loop."""

    name: str
    node: str
    after: tuple[str, ...]
    when: str
    does: str
    effect: Rehearsed
    has_undo: bool
    inside: tuple[StepPreview, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """The whole. starts: a run would find its tables as the models say, or make them so itself. last: the last run that
    is recorded, with the names of what changed since, None where that can no longer be told."""

    pipeline: str
    database: Database
    tables: MigrationPlan
    starts: bool
    last: RunRow | None
    changed: tuple[str, ...] | None
    steps: tuple[StepPreview, ...]


async def preview(path: Path, database: str | None, environment: str | None, only: Sequence[str] = ()) -> Preview:
    """What a run of this file would do. Raises `DefinitionError`, `UnreachableError`."""
    loaded = load(path)
    plan = build_plan(loaded.graph, loaded.identity, only)
    target = choose_database(database, loaded.settings, environment, loaded.project)
    models = loaded.graph.models
    sources, written = sources_of(loaded.catalog, loaded.project), written_files(loaded.project)
    pending = await pending_plan(target, models, sources, written)
    is_harmless = pending.level == "LOW" and not pending.blocked and target.creates_tables
    tables = build_tables(models, target.database)
    steps = [await _step(planned.step, planned, target.database, tables) for planned in _in_order(plan)]
    last = await _last_run(target, plan.name)
    return Preview(
        plan.name, target.database, pending, is_harmless or not (pending.steps or pending.blocked), last,
        _changed(last, loaded) if last else None, tuple(steps),
    )  # fmt: skip


def _in_order(plan: Plan) -> list[PlannedStep]:
    """The steps so that each stands after all it waits for; else as in the file, those that run last at the end."""
    waiting = sorted(plan.steps.values(), key=lambda planned: list(_PHASES).index(planned.step.phase))
    placed: dict[str, PlannedStep] = {}
    while waiting:
        ready = next(p for p in waiting if all(w.upstream in placed or w.upstream not in plan.steps for w in p.waits))
        placed[ready.step.id] = ready
        waiting.remove(ready)
    return list(placed.values())


async def _step(
    step: GraphStep, planned: PlannedStep | None, database: Database, tables: Mapping[str, sa.Table]
) -> StepPreview:
    # a body of more than one step ends with a step of its own name, which only gathers its outputs
    inside = [await _step(inner, None, database, tables) for inner in _inner(step) if inner.id != step.id]
    effect = Rehearsed()
    if can_rehearse(step):
        effect = await rehearse(step, database, tables)
    conditions = ", ".join(link.text for condition in step.when for link in condition.links)
    waits = planned.waits if planned else ()
    after = tuple(f"{w.upstream}{' (finished)' if w.only_end else ''}" for w in waits)
    when = ", ".join(text for text in (_PHASES[step.phase], f"if {conditions} says so" if conditions else "") if text)
    return StepPreview(step.id, step.node, after, when, _does(step), effect, step.undo is not None, tuple(inside))


def _inner(step: GraphStep) -> Sequence[GraphStep]:
    """The steps of a group or a loop."""
    steps: Sequence[GraphStep] = getattr(step.kind, "steps", ())
    return steps


def _does(step: GraphStep) -> str:
    """In words, for what is no table."""
    if step.checked.external is not None:
        return step.checked.external.does
    if can_rehearse(step) or _inner(step):
        return ""
    place = next((step.arguments[name] for name in ("path", "pattern", "folder") if name in step.arguments), None)
    if place is None or step.kind.uses_database:
        return step.kind.summary.split("; ")[0].rstrip(".") if step.kind.writes or step.kind.uses_database else ""
    shown = getattr(place, "text", place)
    return f"{'writes' if step.kind.name.endswith('.write') else 'moves' if step.kind.writes else 'reads'} {shown}"


async def _last_run(target: Target, pipeline: str) -> RunRow | None:
    from runner.dialects.session import open_engine
    from runner.dialects.store import Store

    store = Store(open_engine(target.for_reading.url), {})
    try:
        if not await has_ledger(store):
            return None
        found = await list_runs(store, pipeline, 1)
        return found[0] if found else None
    finally:
        await store.close()


def _changed(last: RunRow, loaded: Loaded) -> tuple[str, ...] | None:
    try:
        return tuple(changed_steps(load_recorded(last.definition, Path(last.folder)), loaded))
    except (DefinitionError, OSError):
        return None


# --- in words -----------------------------------------------------------------------------------------------------


def preview_text(found: Preview) -> str:
    """For a reader at a terminal."""
    told = [f"{found.pipeline} on {found.database}", "", f"tables: {_tables_text(found)}"]
    if found.tables.steps or found.tables.drifted:
        told += ["", plan_text(found.tables)]
    told += ["", f"definition: {_definition_text(found)}", ""]
    for number, step in enumerate(found.steps, 1):
        told += _step_text(step, f"{number}")
    return "\n".join(told)


def _tables_text(found: Preview) -> str:
    if found.tables.blocked:
        return "they wait for a migration that is blocked; no run starts"
    if not found.tables.steps:
        return "as the models say"
    end = "a run makes them so" if found.starts else "no run starts before dfrun migrate apply"
    return f"not as the models say; {end}"


def _definition_text(found: Preview) -> str:
    if found.last is None:
        return "no run of it is recorded here"
    if found.changed is None:
        return f"what run {found.last.run_id} ran can no longer be read"
    names = ", ".join(found.changed)
    return f"changed since run {found.last.run_id}: {names}" if names else f"as in run {found.last.run_id}"


def _step_text(step: StepPreview, number: str, indent: str = "") -> list[str]:
    told = [f"{indent}{number}  {step.name}  {step.node}{_order_text(step)}"]
    inner = f"{indent}{' ' * len(number)}  "
    told += [f"{inner}{line}" for line in _touched(step)]
    for statement in step.effect.statements:
        told += [f"{inner}  {line}" for line in statement.text.split("\n")]
        told += [f"{inner}    :{name} ← {text}" for name, text in statement.values]
    if not step.effect.is_whole:
        told.append(f"{inner}  … the rest depends on what it meets")
    for position, each in enumerate(step.inside, 1):
        told += _step_text(each, f"{number}.{position}", inner)
    return told


def _order_text(step: StepPreview) -> str:
    parts = [f"after {', '.join(step.after)}"] if step.after else []
    return "".join(f"  {part}" for part in [*parts, *([step.when] if step.when else [])])


def _touched(step: StepPreview) -> list[str]:
    told = [f"writes {', '.join(step.effect.writes)}"] if step.effect.writes else []
    told += [f"reads {', '.join(step.effect.reads)}"] if step.effect.reads else []
    told += [step.does] if step.does else []
    return ["; ".join(told) + ("; can be taken back" if step.has_undo else "")] if told else []


def preview_markdown(found: Preview) -> str:
    """For a pull request."""
    told = [f"## {found.pipeline} on {found.database}", "", f"Tables: {_tables_text(found)}.", ""]
    told += [plan_markdown(found.tables), ""] if found.tables.steps else []
    told += [
        f"Definition: {_definition_text(found)}.",
        "",
        "| # | step | node | after | touches |",
        "|---|---|---|---|---|",
    ]
    rows = [(str(n), step) for n, step in enumerate(found.steps, 1)]
    while rows:
        number, step = rows.pop(0)
        rows[:0] = [(f"{number}.{n}", each) for n, each in enumerate(step.inside, 1)]
        cells = [number, step.name, step.node, ", ".join(step.after), "; ".join(_touched(step))]
        told.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(told)


def preview_json(found: Preview) -> str:
    """For machines."""
    last = found.last and {"run_id": found.last.run_id, "status": found.last.status,
                           "changed": None if found.changed is None else list(found.changed)}  # fmt: skip
    tables = plan_document(found.tables) | {"changes": found.tables.changes}
    summary = headline(found.tables) if found.tables.steps else None
    document = {"pipeline": found.pipeline, "database": found.database, "starts": found.starts, "summary": summary,
                "tables": tables, "last_run": last, "steps": [_step_record(step) for step in found.steps]}  # fmt: skip
    return json.dumps(document, ensure_ascii=False, indent=2)


def _step_record(step: StepPreview) -> dict[str, object]:
    statements = [{"text": s.text, "values": dict(s.values)} for s in step.effect.statements]
    return {
        "id": step.name, "node": step.node, "after": list(step.after), "when": step.when, "does": step.does,
        "reads": list(step.effect.reads), "writes": list(step.effect.writes), "sql": statements,
        "is_whole": step.effect.is_whole, "undo": step.has_undo, "steps": [_step_record(each) for each in step.inside],
    }  # fmt: skip
