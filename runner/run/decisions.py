"""What a user decides about a run that goes on: with which text, what came of steps whose outcome is unknown, and which
steps stay as they are though the run is taken back. Each decision is checked before the run is taken over, and put on
record after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from runner.errors import DefinitionError, Problem
from runner.features.base import Scope
from runner.ledger.outputs import decode
from runner.ledger.records import Ledger, Record, StepKey, load_records
from runner.ledger.runs import RunRow
from runner.ledger.seals import Seals, text_of
from runner.loading import Loaded, changed_steps, definition_of, load, shown
from runner.plan import Plan
from runner.run.choices import Decisions
from runner.run.items import leaves_of
from runner.run.saga import MARK, SKIPPED
from schemas.parsing import parse_value
from schemas.types import ValueProblem, ValueType

if TYPE_CHECKING:
    from runner.dialects.session import CoreSession
    from runner.dialects.store import Store
    from runner.graph import GraphStep


def definition_of_run(recorded: Loaded, row: RunRow, decisions: Decisions, tell: Callable[[str], None]) -> Loaded:
    """The definition to go on with: the run's own, or the file as it is now when that is asked for."""
    if not recorded.path.is_file():
        if decisions.use_current:
            raise DefinitionError(Problem("DF101", f"there is no file {shown(recorded.path)!r}"))
        return recorded
    if decisions.use_current:
        return load(recorded.path)
    try:
        current = load(recorded.path)
    except DefinitionError:
        tell(f"{shown(recorded.path)} has problems now; the run goes on with the text it began with")
        return recorded
    changed = changed_steps(recorded, current)
    if changed:
        names = ", ".join(changed)
        tell(f"changed since the run began: {names}; it goes on as it began (--use-current takes the new text)")
    return recorded


async def check_decisions(
    store: Store,
    plan: Plan,
    row: RunRow,
    recorded: Loaded,
    loaded: Loaded,
    decisions: Decisions,
    seals: Seals,
) -> None:
    """Raises `DefinitionError` DF446 (a finished step has changed), DF448 (nothing to decide), DF449 (an output that
    does not fit); nothing is taken over then."""
    records = await load_records(store, row.run_id)
    texts = {key: text_of(seals, record) for key, record in records.items()}
    finished = {key.step.partition(".")[0] for key, record in records.items() if record.status != "started"}
    if decisions.use_current:
        changed = [n for n in changed_steps(recorded, loaded) if n in finished]
        if changed:
            what = f"finished steps have changed: {', '.join(changed)}"
            why = "their effects are in the database as the old text said"
            raise DefinitionError(Problem("DF446", what, None, why, "start a new run, or change only what has not run"))
        for name, planned in plan.steps.items():
            record = records.get(StepKey(name))
            kept = decode(texts[record.key]) if record and record.status == "done" and record.output else None
            missing = sorted((planned.wanted or frozenset()) - kept.keys()) if isinstance(kept, Mapping) else []
            if missing:
                what = f"{name}.{missing[0]} was not kept, because nothing read it when {name} ran"
                raise DefinitionError(Problem("DF446", what, None, "a finished step does not run again",
                                              "start a new run"))  # fmt: skip
    for label in (*decisions.redo, *([decisions.done] if decisions.done else [])):
        if _open_key(records, label) is None:
            waiting = sorted(key.label for key, each in records.items() if each.status == "started")
            fix = f"one of: {', '.join(waiting)}" if waiting else "dfrun runs show tells where it stands"
            raise DefinitionError(Problem("DF448", f"there is nothing to decide about {label!r}", None, "", fix))
    if decisions.done:
        _given(plan, records, decisions.done, decisions.output)
    for label in decisions.skip_undo:
        if not decisions.reason:
            what = "--skip-undo wants --reason TEXT"
            raise DefinitionError(Problem("DF448", what, None, "no undo is dropped without a word"))
        if not _is_undone_later(plan, records, label):
            left = [name for name in plan.undoes if _is_undone_later(plan, records, name)]
            fix = f"one of: {', '.join(left)}; of one item of a loop: STEP:NUMBER" if left else ""
            what = f"{label!r} is not going to be taken back in this run"
            raise DefinitionError(Problem("DF448", what, None, "there is no undo to leave out", fix))


def _key_of(label: str, kind: Literal["do", "undo"]) -> StepKey:
    """`charge` or, of one item of a loop, `charge:3`."""
    name, _, part = label.partition(":")
    return StepKey(name, kind, part)


def _open_key(records: Mapping[StepKey, Record], label: str) -> StepKey | None:
    """The record of which nobody knows what came of it: of the undo, in a run that is being taken back."""
    for kind in ("undo", "do") if MARK in records else ("do",):
        key = _key_of(label, kind)
        if key in records and records[key].status == "started":
            return key
    return None


def _step_of(plan: Plan, key: StepKey) -> GraphStep | None:
    """A step of the plan, or one that is done for each item of a loop."""
    every = (inner for planned in plan.steps.values() for inner in leaves_of(planned.step))
    return next((step for step in every if step.id == key.step), None)


def _is_undone_later(plan: Plan, records: Mapping[StepKey, Record], label: str) -> bool:
    """Whether something of a step is there to be taken back."""
    key = _key_of(label, "undo")
    if key in records and records[key].status == "done":
        return False
    inside = {leaf.id: name for name in plan.undoes for leaf in leaves_of(plan.steps[name].step) if leaf.undo}
    names = {leaf for leaf, name in inside.items() if key.step in (leaf, name)}
    return any(each.step in names and each.kind == "do" and key.part in ("", each.part) for each in records)


async def decide(ledger: Ledger, plan: Plan, loaded: Loaded, decisions: Decisions, scope: Scope) -> None:
    """Put the user's decisions on record."""
    for label in decisions.redo:
        key = _open_key(ledger.records, label)
        assert key is not None
        await ledger.forget(key)
        ledger.records.pop(key)
    if decisions.done:
        key = _open_key(ledger.records, decisions.done)
        assert key is not None
        await ledger.settle(key, _given(plan, ledger.records, decisions.done, decisions.output), None, None)
    for label in decisions.skip_undo:
        await _leave(ledger, loaded, scope, label, decisions.reason or "")
    if decisions.done or decisions.skip_undo:
        ledger.records.update(await load_records(ledger.store, ledger.run_id))
    if decisions.use_current:
        await ledger.note_definition(loaded.identity, definition_of(loaded))


async def _leave(ledger: Ledger, loaded: Loaded, scope: Scope, label: str, reason: str) -> None:
    """Put on record that a step is not taken back: in the ledger and, where changes are audited, in their trail."""
    is_audited = any("audit_log" in model.features for model in loaded.graph.models.values())

    async def note(session: CoreSession) -> None:
        from runner.audit.trail import Recorder as Trail

        if is_audited:
            trail = Trail(session, scope)
            await trail.note("skip_undo", label, {"reason": reason})
            await trail.seal()

    key = _key_of(label, "undo")
    if key in ledger.records:  # it was begun, and nobody knows what came of it
        await ledger.settle(key, {SKIPPED: reason}, None, None, note)
    else:
        await ledger.record(key, {SKIPPED: reason}, None, None, note)


def _given(plan: Plan, records: Mapping[StepKey, Record], name: str, text: str | None) -> object:
    """The output that a user gives for a step."""
    from runner.source import parse_document

    key = _open_key(records, name)
    step = _step_of(plan, key) if key is not None else None
    if key is None or key.kind == "undo" or step is None:
        return None
    kind = step.checked.output
    read = plan.steps[key.step].wanted if not key.part else None
    if text is None:
        fields = kind.fields or {}
        wanted = sorted(n for n in read or fields if n in fields and not fields[n].nullable)
        if wanted and read != frozenset():
            what = f"{name}.{wanted[0]} ({fields[wanted[0]]}) is read by other steps"
            raise DefinitionError(Problem("DF449", what, None, "", f"--with-output '{{{wanted[0]}: …}}'"))
        return dict.fromkeys(fields)
    try:
        raw = parse_document(f"value: {text}".encode(), "-").root["value"]
        optional = ValueType("record", fields={n: k.optional() for n, k in (kind.fields or {}).items()})
        return parse_value(optional if kind.fields is not None else kind, raw)
    except (ValueProblem, DefinitionError) as error:
        what = error.what if isinstance(error, ValueProblem) else error.problems[0].what
        raise DefinitionError(Problem("DF449", f"--with-output: {what}", None, f"{name} gives {kind}")) from None
