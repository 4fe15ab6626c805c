"""The executor: runs a plan's steps as soon as their inputs are there, a bounded number at a time, and gives a result
for every one of them.

Where each step stands is on the `board`; how the effect of a step is committed and recorded is the work of `effects`.
Emits events; prints nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from runner.conditions import holds
from runner.data.files import Files
from runner.data.rows import Stream
from runner.errors import Problem, StepError
from runner.events import (
    RunFinished,
    RunStarted,
    RunState,
    StepRetrying,
    StepStarted,
    StepState,
)  # fmt: skip
from runner.graph.inside import LeftOutError
from runner.graph.loop import Loop
from runner.graph.shapes import Phase
from runner.ledger.records import StepKey, TakenOverError
from runner.nodes.base import Checked
from runner.plan import Plan
from runner.reach import reach
from runner.run.attempts import Attempts, StoppedError
from runner.run.board import Board, Live, milliseconds_since
from runner.run.context import Emit, StepContext
from runner.run.effects import Effects
from runner.run.failures import DEFAULT_RETRY, UpstreamError, delay_seconds, step_failure
from runner.run.reading import Reading, befell, listed, number_of, reopened
from runner.run.results import FAILED, RunResult, StepResult
from runner.run.saga import MARK, Saga, is_settled_by_undo, mark
from runner.run.streams import Watched

if TYPE_CHECKING:
    from runner.conditions import Condition
    from runner.dialects.store import Store
    from runner.encryption.vault import Vault
    from runner.ledger.lease import Lease
    from runner.ledger.records import Ledger

_AT_ONCE: frozenset[RunState] = frozenset({"timed_out", "taken_over", "silent"})
"""Interruptions that leave running steps no time to end."""
_NOT_RUN: Mapping[type, StepState] = {UpstreamError: "blocked", StoppedError: "cancelled", LeftOutError: "skipped"}
_LEASE_POLL_SECONDS = 0.2
_INTERRUPT_SECONDS = 0.1


@dataclass(slots=True)
class Executor:
    """One run of one plan.

    roots: the values of `params`, `secrets` and `run`. `ledger` and `lease` are missing where nothing is recorded.
    """

    plan: Plan
    store: Store | None
    roots: Mapping[str, object]
    run_id: str
    now: datetime
    project: Path
    emit: Emit = field(default=lambda event: None)
    parallel: int = 8
    grace_seconds: float = 10.0
    tenant: str | None = None
    actor: str = ""
    vault: Vault | None = None
    audit_head: str | None = None
    ledger: Ledger | None = None
    lease: Lease | None = None
    files: Files | None = None
    """Those of a dry run."""
    is_asked_to_undo: bool = False
    """The run is taken back because its user says so, not because it failed."""
    _effects: Effects = field(init=False)
    _board: Board = field(init=False)
    _is_undoing: bool = False
    _saga: Saga | None = None
    _cause: Problem | None = None
    _attempts: Attempts = field(init=False)
    _interruption: RunState | None = None
    _workers: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        files = self.files or Files(self.project)
        self._effects = Effects(self.store, self.ledger, files, self.tenant, self.actor, self.vault)
        self._board = Board(self.plan, self.emit)
        self.parallel = 1 if files.is_dry else self.parallel  # one transaction, in which there is no beside

    async def run(self) -> RunResult:
        """Run every step that can run and has not run before; never raises for what a step does."""
        started = time.perf_counter()
        self._attempts = Attempts(
            self._effects, self.ledger, self.run_id, self.now, self.emit, lambda: self._interruption is not None,
            self._extend_audit,
        )  # fmt: skip
        self.emit(RunStarted(self.run_id, self.plan.name, tuple(self.plan.steps)))
        await self._restore()
        limit = asyncio.create_task(self._limit()) if self.plan.timeout_seconds else None
        if not self._is_undoing:
            await self._go_through("main")
        if not self._interruption:
            await self._afterwards()
        if limit:
            limit.cancel()
        self._board.close()
        state = self._state()
        outputs = await self._outputs()
        elapsed = milliseconds_since(started)
        self.emit(RunFinished(self.run_id, state, elapsed))
        steps = {name: cast(StepResult, live.result) for name, live in self._board.lives.items()}
        problem = befell(state, self.run_id) or (self._saga.problem if self._saga else None) or self._cause
        return RunResult(
            self.run_id, self.plan.name, state, outputs, steps, elapsed, problem, self._board.bug, self.audit_head,
            self._saga.told if self._saga else {}, self.is_asked_to_undo, self._effects.files.is_dry,
            self._effects.left_out,
        )  # fmt: skip

    # --- phases ----------------------------------------------------------------------------------------------

    async def _go_through(self, phase: Phase) -> None:
        """Run the steps of a phase, as far as they can run, and settle the others."""
        lives = self._board.begin(phase)
        self._workers = [asyncio.create_task(self._work()) for _ in range(max(1, min(self.parallel, len(lives))))]
        ends = await asyncio.gather(*self._workers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end  # a worker never ends like this unless the executor itself is wrong
        for live in lives:
            if live.state is None:
                self._board.finish(live, "cancelled")

    async def _afterwards(self) -> None:
        """What follows on the steps: taking them back, the steps for a failure, the last ones."""
        unknown = [live.planned.step for live in self._board.lives.values() if live.state == "undecided"]
        if self._board.is_undecided and not all(is_settled_by_undo(step, self.plan.undoes) for step in unknown):
            return  # a decision comes first
        has_failed = self._board.has_failed or self._is_undoing
        if has_failed and self.plan.undoes:
            await self._take_back()
            if self._saga is not None and self._saga.problem is not None:
                return
        if self.is_asked_to_undo:
            return
        for phase in ("failure", "finally"):
            lives = self._board.of_phase(phase)
            if phase == "failure" and not has_failed:
                for live in lives:
                    if live.state is None:
                        self._board.finish(live, "skipped")
            elif lives:
                await self._go_through(phase)

    async def _take_back(self) -> None:
        """Undo what is done, the last step first; that this has begun is recorded before."""
        lives = list(self._board.lives.values())
        if self.ledger is not None and not self._is_undoing:
            await mark(self.ledger, next((r.problem for r in (live.result for live in lives) if r and r.problem), None))
        self._is_undoing = True
        self._saga = Saga(self._attempts, self.ledger, self._value, self.plan.undoes)
        try:
            await self._saga.take_back(lives)
        except StoppedError:
            return  # the run is interrupted, and a resumed one goes on here
        except TakenOverError:
            self.interrupt("taken_over")

    def interrupt(self, state: RunState = "interrupted") -> None:
        """Start no new step; steps that still run after `grace_seconds` are cancelled and rolled back."""
        if self._interruption is None:
            self._interruption = state
            self._board.is_stopped = True
            self._board.wake_all()
            if state == "silent" and self.store is not None:
                self.store.break_off()
            asyncio.get_running_loop().call_later(
                0.0 if state in _AT_ONCE else self.grace_seconds, self._cancel_workers
            )

    def hear(self, lease: Lease) -> None:
        """Act on what the beat of the run's lease has learned."""
        if lease.is_lost:
            self.interrupt("taken_over")
        elif lease.is_silent:
            self.interrupt("silent")
        elif lease.is_cancelled:
            self.interrupt("cancelled")

    def _state(self) -> RunState:
        if self._interruption:
            return self._interruption
        if self._saga is not None and self._saga.problem is not None:
            return "undo_failed"
        if self._saga is not None:
            return "undone" if self._saga.is_whole else "partly_undone"
        if self._board.is_undecided:
            return "needs_decision"
        return "failed" if self._board.has_failed else "succeeded"

    def _cancel_workers(self) -> None:
        self._interrupt_statements()
        for worker in self._workers:
            worker.cancel()

    def _interrupt_statements(self) -> None:
        if self.store is not None and not all(worker.done() for worker in self._workers):
            self.store.interrupt()
            asyncio.get_running_loop().call_later(_INTERRUPT_SECONDS, self._interrupt_statements)

    async def _limit(self) -> None:
        await asyncio.sleep(self.plan.timeout_seconds or 0)
        self.interrupt("timed_out")

    # --- what was done before --------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Settle the steps that are recorded: they do not run again, and their readers get what was recorded."""
        records = self.ledger.records if self.ledger and self.ledger.records else {}
        mark = records.get(MARK)
        if mark is not None and self.ledger is not None:
            self._is_undoing = True
            why = cast("Mapping[str, str]", await self.ledger.value(mark))
            if why["what"]:
                self._cause = Problem(why["code"], why["what"])
        for name, live in self._board.lives.items():
            record = records.get(StepKey(name))
            if record is None:
                continue
            if self._is_undoing and record.status == "started":
                live.order, live.state = record.seq, "undecided"
                live.result = StepResult("undecided")
                continue
            assert self.ledger is not None
            if record.status == "done":
                value = await self.ledger.value(record)
            elif record.status == "source" and record.seq:
                value = await reopened(self.ledger, live, record, partial(self._again, live))
            else:
                continue
            self._board.restore(live, value, record.rows, record.seq)
        if self._is_undoing:
            for live in self._board.of_phase("main"):
                if live.state is None:
                    self._board.finish(live, "cancelled")

    # --- scheduling ------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        board, turns = self._board, 0
        while True:
            live = board.next()
            if live is None:
                if not board.busy:
                    board.wake_all()
                    return
                await board.wait()
                continue
            board.busy += 1
            try:
                await (self._drain(live) if live.stream else self._step(live))
            except BaseException:
                self._cancel_workers()
                raise
            finally:
                board.busy -= 1
            turns += 1
            if turns % 64 == 0:
                await asyncio.sleep(0)  # steps that never wait must not keep signals and limits from being heard

    async def _drain(self, live: Live) -> None:
        """Read a stream to its end for what it gives besides rows."""
        assert live.stream is not None
        try:
            async for _ in live.stream.batches():
                pass
        except UpstreamError:
            pass
        except Exception as error:
            self._board.fail(live, step_failure(live.planned.step, error), None)

    # --- one step --------------------------------------------------------------------------------------------

    async def _step(self, live: Live) -> None:
        step = live.planned.step
        if any(wait.is_early and self._board.lives[wait.upstream].state in FAILED for wait in live.planned.waits):
            self._board.finish(live, "blocked")
            return
        if step.when:
            try:
                is_meant = all([await self._holds(condition) for condition in step.when])
            except StepError as error:  # rows that are read again may fail
                self._board.fail(live, error, None)
                return
            if not is_meant:
                self._board.finish(live, "skipped")
                return
        live.started = time.perf_counter()
        retry = step.retry or DEFAULT_RETRY
        while True:
            if self.lease is not None and not self.lease.is_fresh and not await self._renewed(self.lease):
                return
            live.attempts += 1
            self.emit(StepStarted(step.id, live.attempts))
            context = self._attempts.context(step)
            try:
                value = await self._attempt(live, context)
            except (UpstreamError, StoppedError, LeftOutError) as reason:
                self._board.finish(live, _NOT_RUN[type(reason)])
                return
            except TakenOverError:
                self.interrupt("taken_over")
                self._board.finish(live, "cancelled")
                return
            except asyncio.CancelledError:
                self._board.finish(live, "cancelled")
                raise
            except Exception as error:
                told = step_failure(live.planned.step, error)
                wait = None if self._interruption else delay_seconds(step, retry, live.attempts, told)
                await self._attempts.note(StepKey(step.id), live.attempts, told, wait)
                if wait is None:
                    self._board.fail(live, told, context.rows)
                    return
                self.emit(StepRetrying(step.id, live.attempts + 1, wait, told.problem))
                await asyncio.sleep(wait)
                continue
            break
        if isinstance(value, Stream):
            reading = Reading(self._board, self.ledger, live, context)
            self._board.flow(live, Watched(value, reading, value.rows.columns))
        else:
            live.value = value
            self._extend_audit(context.audit_head)
            self._board.finish(live, "succeeded", context.rows)

    def _extend_audit(self, head: str | None) -> None:
        if head is not None and (self.audit_head is None or number_of(head) > number_of(self.audit_head)):
            self.audit_head = head

    async def _renewed(self, lease: Lease) -> bool:
        """Wait until the lease is fresh; False when the run is interrupted before."""
        while not lease.is_fresh:
            if self._interruption:
                return False
            await asyncio.sleep(_LEASE_POLL_SECONDS)
        return True

    async def _holds(self, condition: Condition) -> bool:
        values = {link.text: await self._value(link.source, False, None) for link in condition.links}
        return holds(condition, values)

    async def _again(self, live: Live) -> Mapping[str, object] | Stream | None:
        """Another attempt of a step that has ended, for the rows that flowed from it."""
        return await self._attempt(live, self._attempts.context(live.planned.step))

    async def _attempt(self, live: Live, context: StepContext) -> Mapping[str, object] | Stream | None:
        """One attempt: its arguments, then its effect."""
        step = live.planned.step
        checked: Checked = step.checked
        if step.connections:
            values = [await self._value(link.source, link.has_default, link.default) for link in step.connections]
            checked = step.kind.check(step.bind(values), step.subject)
        key = StepKey(step.id)
        if isinstance(step.kind, Loop):
            value = await self._attempts.loop(step, checked, context)
            return await self._effects.recorded(value, context, key, live.planned.wanted)
        return await self._effects.carry_out(step, checked, context, key, live.planned.wanted)

    async def _value(self, source: tuple[str, ...], has_default: bool, default: object) -> object:
        upstream = self._board.lives.get(source[0])
        if upstream is None:
            return await reach(self.roots[source[0]], source[1:])
        if has_default and upstream.state == "skipped":
            return default
        value = await reach(upstream.value, source[1:])
        return default if has_default and value is None else value

    async def _outputs(self) -> dict[str, object]:
        outputs: dict[str, object] = {}
        for name, link in self.plan.outputs.items():
            upstream = self._board.lives.get(link.root)
            if upstream is None or upstream.state == "succeeded":
                try:
                    value = await reach(upstream.value if upstream else self.roots[link.root], link.source[1:])
                    outputs[name] = await listed(value)
                except StepError:
                    continue  # rows of a file that is no longer as it was
            elif upstream.state == "skipped":
                outputs[name] = None
        return outputs
