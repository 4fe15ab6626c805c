"""A checked pipeline becomes a run, or goes on with one: parameters, database, ledger, lease, executor, and the end of
it on record.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from runner.data.files import Files
from runner.database import Target, choose_database, open_store
from runner.errors import DefinitionError, GateError, Place, Problem
from runner.events import RunNoted, RunState, StepState
from runner.features.base import Scope
from runner.ledger.lease import Lease, this_process
from runner.ledger.outputs import LARGEST_INLINE, decode, encode
from runner.ledger.records import Ledger, load_records
from runner.ledger.runs import (
    NewRun,
    RunRow,
    RunStatus,
    begin_run,
    check_undoable,
    check_unfinished,
    end_run,
    error_text,
    find_run,
    retry_end,
    take_over,
)  # fmt: skip
from runner.ledger.seals import Seals, opened, text_of
from runner.ledger.tables import prepare_ledger
from runner.loading import (
    Loaded,
    definition_of,
    load_recorded,
    read,
    settings_of,
    sources_of,
    written_files,
)
from runner.parameters import read_parameters, read_secrets, recorded_parameters
from runner.plan import Plan, build_plan
from runner.run.choices import Decisions, RunOptions
from runner.run.decisions import check_decisions, decide, definition_of_run
from runner.run.executor import Executor
from runner.run.identity import check_run_id, new_run_id
from runner.run.results import RunResult, SlotResult, StepResult
from runner.run.saga import MARK, mark
from runner.schedule.due import slot_text
from runner.schedule.zones import zone_of
from runner.tenants import actor_of, choose_tenant, refuse_crossing, refuse_without

if TYPE_CHECKING:
    from runner.dialects.store import Store
    from runner.encryption.vault import Vault
    from schemas.pipeline import Overlap, Pipeline

Started = Callable[[Executor], None]
_RECORDED_AS: Mapping[RunState, RunStatus] = {
    "succeeded": "succeeded", "failed": "failed", "interrupted": "interrupted", "timed_out": "interrupted",
    "silent": "interrupted", "cancelled": "cancelled", "needs_decision": "needs_decision", "undone": "undone",
    "partly_undone": "partly_undone", "undo_failed": "undo_failed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ready:
    """A pipeline with all that a run of it needs before a database is opened."""

    loaded: Loaded
    plan: Plan
    values: Mapping[str, object]
    secrets: Mapping[str, str]
    tenant: str | None
    target: Target
    options: RunOptions

    @property
    def tell(self) -> Callable[[str], None]:
        """Says something to the user."""
        return _tell(self.options)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: its id, when it began, and the moment that its steps are told."""

    id: str
    began: datetime
    scheduled_at: datetime


def prepare(loaded: Loaded, options: RunOptions) -> Ready:
    """A pipeline, ready to be run as the options say. Raises `DfrunError`."""
    _check_extras(loaded)
    plan = build_plan(loaded.graph, loaded.identity, options.only)
    file = read(options.parameters_file) if options.parameters_file else None
    values = read_parameters(loaded.pipeline, options.parameters, file, loaded.document)
    secrets = read_secrets(loaded.graph.secrets, loaded.project)
    tenant = choose_tenant(loaded.pipeline, loaded.document, options.tenant, values, os.environ)
    refuse_without(tenant, plan)
    refuse_crossing(plan, is_allowed=options.allow_cross_tenant, is_recorded=loaded.pipeline.ledger == "on")
    if options.run_id:
        check_run_id(options.run_id)
    target = choose_database(options.database, loaded.settings, options.environment, loaded.project)
    return Ready(loaded, plan, values, secrets, tenant, target, options)


async def start(ready: Ready, started: Started, slot: SlotResult | None = None) -> RunResult | RunRow:
    """Begin a run and see it to its end. A `RunRow` comes back where the slot has a run already.

    slot: the slot of its schedule that the run is for. Raises `DfrunError` when nothing has run.
    """
    loaded, plan, options = ready.loaded, ready.plan, ready.options
    now = datetime.now(UTC)
    run = _Run(options.run_id or new_run_id(), now, slot.at if slot else now)
    is_recorded = loaded.pipeline.ledger == "on"
    if options.dry_run:
        return await _run_dry(ready, run, started)
    if not is_recorded and not plan.uses_database:
        return await _executor(ready, run, started).run()
    vault = _vault(loaded)
    async with _store(ready.target, loaded) as store:
        await _check_keys(store, vault, loaded, ready.tenant)
        if not is_recorded:
            return await _executor(ready, run, started, store, vault=vault).run()
        await prepare_ledger(store)
        seals = Seals(run.id, vault)
        given = encode({"params": ready.values, "only": list(options.only)})
        params = seals.close_text(encode(ready.values), "inputs") if vault else ready.values
        inputs = encode({"params": params, "only": list(options.only), "cross_tenant": options.allow_cross_tenant})
        new = NewRun(
            run.id, plan.name, ready.tenant or "", str(loaded.home), definition_of(loaded), loaded.identity, inputs,
            seals.digest(given), run.scheduled_at, options.idempotency_key, slot_text(slot.at) if slot else None,
            "schedule" if slot else "manual",
        )  # fmt: skip
        overlap = _overlap(loaded.pipeline, is_fired=slot is not None)
        ledger = await begin_run(store, new, this_process(), overlap, ready.tell)
        if isinstance(ledger, RunRow):
            if slot is not None and ledger.slot == new.slot:
                return ledger
            return await _named_before(ledger, options, started, vault)
        ledger.seals = seals
        return await _see_through(_executor(ready, run, started, store, ledger, vault), ledger, slot)


def _overlap(pipeline: Pipeline, *, is_fired: bool) -> Overlap:
    """What the pipeline says about runs beside each other; its schedule may say something else about slots."""
    own = pipeline.schedule.overlap if pipeline.schedule and is_fired else None
    return own or pipeline.overlap


async def _run_dry(ready: Ready, run: _Run, started: Started) -> RunResult:
    """The whole run in one transaction that is rolled back; nothing is recorded."""
    from runner.data.files import dry_files
    from runner.run.dry import open_dry_store

    loaded = ready.loaded
    sources, written = sources_of(loaded.catalog, loaded.project), written_files(loaded.project)
    async with AsyncExitStack() as stack:
        store: Store | None = None
        vault: Vault | None = None
        if ready.plan.uses_database:
            opened = open_dry_store(ready.target, loaded.graph.models, sources, written)
            store = await stack.enter_async_context(opened)
            vault = _vault(loaded)
            await _check_keys(store, vault, loaded, ready.tenant)
        files = stack.enter_context(dry_files(loaded.home, zone_of(loaded.pipeline)))
        return await _executor(ready, run, started, store, vault=vault, files=files).run()


def _store(target: Target, loaded: Loaded) -> AbstractAsyncContextManager[Store]:
    sources, written = sources_of(loaded.catalog, loaded.project), written_files(loaded.project)
    return open_store(target, loaded.graph.models, sources, written)


def _check_extras(loaded: Loaded) -> None:
    """Validation passes over a node whose extra is not installed, a run does not. Raises `DefinitionError` DF424."""
    lacking = [replace(warning, severity="error") for warning in loaded.graph.warnings if warning.code == "DF424"]
    if lacking:
        raise DefinitionError(lacking)


def _vault(loaded: Loaded, was_sealed: bool = False) -> Vault | None:
    """The keys, where a model has encrypted fields or a run was recorded with them. Raises `DefinitionError`,
    `UnreachableError` when one is missing."""
    if not was_sealed and not any(model.is_encrypted for model in loaded.graph.models.values()):
        return None
    from runner.encryption.vault import open_vault

    return open_vault(loaded.settings.encryption, os.environ, loaded.project)


def _unseal(kept: dict[str, Any], loaded: Loaded, run_id: str) -> tuple[Seals, Vault | None]:
    """Open the recorded parameters; gives what opens the rest."""
    was_sealed = isinstance(kept["params"], str)
    vault = _vault(loaded, was_sealed)
    seals = Seals(run_id, vault)
    if was_sealed:
        kept["params"] = decode(opened(seals, kept["params"], "inputs"))
    return seals, vault


async def _check_keys(store: Store, vault: Vault | None, loaded: Loaded, tenant: str | None) -> None:
    if vault is not None:
        from runner.encryption.keys import check_keys

        async with store.session() as session:
            await check_keys(session.connection, vault, loaded.graph.models.values(), tenant)


async def _named_before(row: RunRow, options: RunOptions, started: Started, vault: Vault | None) -> RunResult:
    """What to do with a run that is there already: give its result, or go on with it when its process ended early."""
    if row.idempotency_key is None or row.idempotency_key != options.idempotency_key:
        return RunResult(row.run_id, row.pipeline, "skipped", {}, {}, 0.0)  # that one holds the pipeline
    if row.status == "running":
        what = f"the run of this idempotency key is going on: {row.run_id}"
        raise GateError(Problem("DF443", what, None, "a run has one process at a time", "wait for it"))
    if row.status in ("succeeded", "cancelled"):
        return _recorded_result(row, Seals(row.run_id, vault))
    return await resume(row.run_id, options, Decisions(), started)


def result_of(ready: Ready, row: RunRow) -> RunResult:
    """The result that is on record of a run of this pipeline."""
    return _recorded_result(row, Seals(row.run_id, _vault(ready.loaded)))


async def resume(
    run_id: str, options: RunOptions, decisions: Decisions, started: Started, target: Target | None = None,
    slot: SlotResult | None = None,
) -> RunResult:  # fmt: skip
    """Take an unfinished run and see it to its end. Raises `DfrunError` when nothing has run.

    target: the database, where it is not that of the project in which the user stands. slot: what a firing tells of it.
    """
    target = target or _here(options)
    async with open_store(target, {}) as store:
        await prepare_ledger(store)
        row = await find_run(store, run_id)
        check_unfinished(row)
    folder = Path(row.folder)
    if not folder.is_dir():  # noqa: ASYNC240, nothing else goes on yet
        why = "the files that the pipeline names are looked for there"
        raise DefinitionError(Problem("DF447", f"run {run_id} began in {folder}, which is not here", None, why,
                                      "resume it on the machine where it began, or put the folder back"))  # fmt: skip
    recorded = load_recorded(row.definition, folder)
    loaded = definition_of_run(recorded, row, decisions, _tell(options))
    kept = cast("dict[str, Any]", decode(row.inputs))
    _check_extras(loaded)
    plan = build_plan(loaded.graph, loaded.identity, kept["only"])
    refuse_crossing(plan, is_allowed=kept.get("cross_tenant", False), is_recorded=True)
    seals, vault = _unseal(kept, loaded, run_id)
    values = recorded_parameters(loaded.pipeline, kept["params"], loaded.document)
    secrets = read_secrets(loaded.graph.secrets, loaded.project)
    async with _store(target, loaded) as store:
        await _check_keys(store, vault, loaded, row.tenant or None)
        is_asked_to_undo = await _was_asked_to_undo(store, run_id, seals)
        plan = _with_every_undo(plan) if is_asked_to_undo else plan
        await check_decisions(store, plan, row, recorded, loaded, decisions, seals)
        overlap = _overlap(loaded.pipeline, is_fired=slot is not None)
        if slot is None and overlap != "allow":
            overlap = "refuse"  # whoever resumes by hand decides what to do about it
        row, ledger = await take_over(store, run_id, this_process(), _tell(options), overlap)
        if ledger is None:
            return RunResult(run_id, row.pipeline, "skipped", {}, {}, 0.0)
        ledger.seals = seals
        ready = Ready(loaded, plan, values, secrets, row.tenant or None, target, options)
        scope = Scope(datetime.now(UTC), ready.tenant, run_id, "resume", actor_of(os.environ), vault)
        await decide(ledger, plan, loaded, decisions, scope)
        executor = _executor(ready, _run_of(row), started, store, ledger, vault)
        executor.is_asked_to_undo = is_asked_to_undo
        return await _see_through(executor, ledger, slot)


async def undo(run_id: str, options: RunOptions, started: Started) -> RunResult:
    """Take a run back that has ended: the undo of each of its steps that has one. Raises `DfrunError` when nothing has
    run."""
    target = _here(options)
    async with open_store(target, {}) as store:
        await prepare_ledger(store)
        row = await find_run(store, run_id)
        check_undoable(row)
    loaded = load_recorded(row.definition, Path(row.folder))
    kept = cast("dict[str, Any]", decode(row.inputs))
    plan = build_plan(loaded.graph, loaded.identity, kept["only"])
    plan = _with_every_undo(plan)
    if not plan.undoes:
        what = f"no step of {row.pipeline} has an undo"
        raise DefinitionError(Problem("DF450", what, None, "there is nothing to take back", "undo: auto at the steps"))
    seals, vault = _unseal(kept, loaded, run_id)
    values = recorded_parameters(loaded.pipeline, kept["params"], loaded.document)
    secrets = read_secrets(loaded.graph.secrets, loaded.project)
    async with open_store(target, loaded.graph.models) as store:
        await _check_keys(store, vault, loaded, row.tenant or None)
        row, ledger = await take_over(store, run_id, this_process(), _tell(options), may_be_done=True)
        assert ledger is not None, "nothing is skipped where overlap says refuse"
        ledger.seals = seals
        if MARK not in ledger.records:
            await mark(ledger, None, is_asked=True)
            ledger.records.update(await load_records(store, run_id))
        ready = Ready(loaded, plan, values, secrets, row.tenant or None, target, options)
        executor = _executor(ready, _run_of(row), started, store, ledger, vault)
        executor.is_asked_to_undo = True
        return await _see_through(executor, ledger)


def _here(options: RunOptions) -> Target:
    """The database of the project where the user stands."""
    settings, project = settings_of(Path.cwd())
    return choose_database(options.database, settings, options.environment, project)


def _run_of(row: RunRow) -> _Run:
    """A run that is on record; one without a slot was scheduled when it began."""
    return _Run(row.run_id, row.started_at if row.slot else row.scheduled_at, row.scheduled_at)


def _with_every_undo(plan: Plan) -> Plan:
    """The plan, in which every step that has an undo is taken back."""
    return replace(plan, undoes=tuple(n for n, planned in plan.steps.items() if planned.step.undo is not None))


async def _was_asked_to_undo(store: Store, run_id: str, seals: Seals) -> bool:
    """Whether a run was being taken back because its user said so."""
    record = (await load_records(store, run_id)).get(MARK)
    kept = decode(text_of(seals, record)) if record is not None else None
    return isinstance(kept, Mapping) and bool(kept.get("asked"))


def _executor(
    ready: Ready, run: _Run, started: Started, store: Store | None = None, ledger: Ledger | None = None,
    vault: Vault | None = None, files: Files | None = None,
) -> Executor:  # fmt: skip
    loaded, zone = ready.loaded, zone_of(ready.loaded.pipeline)
    told = {
        "id": run.id, "pipeline": ready.plan.name, "scheduled_at": run.scheduled_at,
        "scheduled_date": run.scheduled_at.astimezone(zone).date(), "tenant": ready.tenant,
    }  # fmt: skip
    executor = Executor(
        ready.plan,
        store,
        {"params": ready.values, "secrets": ready.secrets, "run": told},
        run.id,
        run.began,
        loaded.home,
        ready.options.emit,
        loaded.settings.parallel,
        ledger=ledger,
        files=files or Files(loaded.home, zone),
        tenant=ready.tenant,
        actor=actor_of(os.environ),
        vault=vault,
    )
    started(executor)
    return executor


async def _run(executor: Executor) -> RunResult:
    """The result; what the database refuses while it is asked what is recorded is a run that stands still, no refusal
    of the call."""
    from runner.dialects.errors import is_database_error, step_error

    try:
        return await executor.run()
    except Exception as error:
        if not is_database_error(error):
            raise
        told = step_error(error, {})
        state: RunState = "silent" if told.error_class == "transient" else "failed"
        fix = f"dfrun resume {executor.run_id}"
        return RunResult(executor.run_id, executor.plan.name, state, {}, {}, 0.0, replace(told.problem, fix=fix))


async def _see_through(executor: Executor, ledger: Ledger, slot: SlotResult | None = None) -> RunResult:
    """Run to the end under a lease, and record how it ended."""
    loop = asyncio.get_running_loop()

    def heard(lease: Lease) -> None:
        loop.call_soon_threadsafe(executor.hear, lease)

    with Lease(ledger.store.engine.url, ledger.run_id, ledger.epoch, heard) as lease:
        executor.lease = lease
        result = replace(await _run(executor), slot=slot)
        if result.state in ("taken_over", "silent"):
            return result  # nobody can write down the end of a run without its database; its lease ends by itself
        problem = result.problems[0] if result.problems else None
        outputs = _outputs_text(result.outputs, ledger.seals)

        async def end() -> bool:
            return await end_run(
                ledger, _RECORDED_AS[result.state], error_text(problem), outputs, _summary_text(result)
            )

        if not await retry_end(end):
            what = "how the run ended could not be recorded; it will be shown as interrupted"
            executor.emit(RunNoted(f"{what}: dfrun resume {ledger.run_id}"))
    return result


# --- results on record ----------------------------------------------------------------------------------------------


def _outputs_text(outputs: Mapping[str, object], seals: Seals) -> str | None:
    try:
        text = encode(outputs)
    except TypeError:
        return None
    return seals.close_text(text, "outputs") if len(text) <= LARGEST_INLINE else None


def _summary_text(result: RunResult) -> str:
    steps = {
        name: {
            "state": step.state, "attempts": step.attempts, "rows": step.rows, "duration_ms": step.duration_ms,
            "error": json.loads(error_text(step.problem) or "null"), "class": step.error_class,
            "sqlstate": step.sqlstate,
        }
        for name, step in result.steps.items()
    }  # fmt: skip
    undo = {name: asdict(each) for name, each in result.undo.items()}
    return json.dumps({"duration_ms": result.duration_ms, "steps": steps, "undo": undo})


def _recorded_result(row: RunRow, seals: Seals) -> RunResult:
    """A run's result from what is recorded of it."""
    kept: dict[str, Any] = json.loads(row.summary) if row.summary else {"duration_ms": 0.0, "steps": {}}
    steps = {
        name: StepResult(
            cast(StepState, step["state"]), step["attempts"], step["rows"], step["duration_ms"],
            problem_of(step["error"]), step["class"], step["sqlstate"], True,
        )
        for name, step in kept["steps"].items()
    }  # fmt: skip
    outputs = cast("dict[str, object]", decode(opened(seals, row.outputs, "outputs"))) if row.outputs else {}
    state = cast(RunState, row.status)
    return RunResult(row.run_id, row.pipeline, state, outputs, steps, kept["duration_ms"])


def problem_of(kept: Mapping[str, Any] | None) -> Problem | None:
    """A problem as `error_text` kept it."""
    if kept is None:
        return None
    place = None
    if kept["place"]:
        file, line, column = kept["place"].rsplit(":", 2)
        place = Place(file, int(line), int(column))
    return Problem(kept["code"], kept["what"], place, kept["why"], kept["fix"])


def _tell(options: RunOptions) -> Callable[[str], None]:
    return lambda message: options.emit(RunNoted(message))


@asynccontextmanager
async def open_ledger(database: str | None, environment: str | None) -> AsyncIterator[Store]:
    """The database of the project where the user stands, with its ledger; looking leaves no new file behind. Raises
    `DfrunError`."""
    from runner.dialects.session import open_engine
    from runner.dialects.store import Store

    target = _here(RunOptions(database=database, environment=environment))
    async with AsyncExitStack() as stack:
        if target.is_missing_file:
            store = Store(open_engine(target.for_reading.url), {})
            stack.push_async_callback(store.close)
        else:
            store = await stack.enter_async_context(open_store(target, {}))
        await prepare_ledger(store)
        yield store
