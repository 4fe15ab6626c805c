"""The executor: runs a plan's steps as soon as their inputs are there, a bounded number at a time, and gives a result
for every one of them.

A ready queue by in-degree; each attempt of a step in a transaction of its own (`_attempt` is the one place where a
step's effect is committed). Emits events; prints nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from runner.conditions import holds
from runner.errors import Problem, StepError
from runner.events import (
    Event,
    RunFinished,
    RunStarted,
    RunState,
    StepFinished,
    StepLogged,
    StepProgress,
    StepRetrying,
    StepStarted,
    StepState,
)  # fmt: skip
from runner.plan import Plan, PlannedStep, Wait
from runner.reach import reach
from runner.rows import Batch, Rows, Stream
from schemas.pipeline import Retry
from schemas.types import ValueProblem

if TYPE_CHECKING:
    from runner.access import Access
    from runner.conditions import Condition
    from runner.dialects.session import Store

Emit = Callable[[Event], None]
_DEFAULT_RETRY = Retry(max=2)
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.2, 30.0
_CLIENT_GRACE_SECONDS = 2.0
"""The server's own time limit comes first; the client steps in this much later."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step ended. `rows` is None where that means nothing; `problem` says why it did not succeed."""

    state: StepState
    attempts: int = 0
    rows: int | None = None
    duration_ms: float = 0.0
    problem: Problem | None = None
    error_class: str | None = None
    sqlstate: str | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: its outputs by name (those that could be reached), and every step in the order of the file.

    `bug` is an exception of dfrun's own, for the traceback file. `audit_head` is the end of the chain of changes as
    this run left it, `number:hash`; None where it changed nothing that is audited.
    """

    run_id: str
    pipeline: str
    state: RunState
    outputs: Mapping[str, object]
    steps: Mapping[str, StepResult]
    duration_ms: float
    bug: BaseException | None = None
    audit_head: str | None = None

    @property
    def problems(self) -> list[Problem]:
        """Why steps failed, in the order of the file; blocked steps have nothing of their own to say."""
        return [r.problem for r in self.steps.values() if r.problem is not None and r.state in ("failed", "timed_out")]


@dataclass(slots=True)
class StepContext:
    """What a running step may use; one an attempt."""

    project: Path
    run_id: str
    step_id: str
    now: datetime
    emit: Emit
    _access: Access | None = None
    rows: int | None = None

    @property
    def access(self) -> Access:
        """The tables, inside the transaction of this attempt."""
        assert self._access is not None, f"{self.step_id} uses a database its kind did not ask for"
        return self._access

    def progress(self, rows: int) -> None:
        """Say that `rows` rows more are done."""
        self.rows = (self.rows or 0) + rows
        self.emit(StepProgress(self.step_id, self.rows))

    def log(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        """Put a message into the run's log."""
        self.emit(StepLogged(self.step_id, level, message, fields))


@dataclass(slots=True)
class _Live:
    """One step while the run goes on."""

    planned: PlannedStep
    pending: int
    verdict: StepState | None = None
    state: StepState | None = None
    value: object = None
    stream: _Watched | None = None
    attempts: int = 0
    started: float = 0.0
    result: StepResult | None = None


class UpstreamError(Exception):
    """The rows that a step reads cannot be read to their end; the step that gives them has said why."""


@dataclass(slots=True)
class _Watched:
    """Streamed rows: the first complete pass over them ends their step, a pass that fails is that step's failure."""

    inner: Stream
    live: _Live
    executor: Executor
    context: StepContext
    columns: tuple[str, ...] = ()

    async def batches(self) -> AsyncIterator[Batch]:
        seen = 0
        try:
            async for batch in self.inner.rows.batches():
                seen += len(batch.rows)
                if self.live.state is None and seen > (self.context.rows or 0):
                    self.context.progress(seen - (self.context.rows or 0))
                yield batch
        except StepError as error:
            if self.live.state is not None:
                raise
            self.executor.fail(self.live, error, self.context.rows)
            raise UpstreamError from error
        if self.live.state is None:
            self.live.value = {"rows": self} | dict(self.inner.rest())
            self.executor.finish(self.live, "succeeded", rows=self.context.rows or 0)


@dataclass(slots=True)
class Executor:
    """One run of one plan.

    roots: the values of `params`, `secrets` and `run`.
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
    audit_head: str | None = None
    bug: BaseException | None = None
    _live: dict[str, _Live] = field(default_factory=dict)
    _ready: deque[_Live] = field(default_factory=deque)
    _idle: deque[asyncio.Future[None]] = field(default_factory=deque)
    _busy: int = 0
    _has_failed: bool = False
    _interruption: RunState | None = None
    _workers: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> RunResult:
        """Run every step that can run; never raises for what a step does."""
        started = time.perf_counter()
        self.emit(RunStarted(self.run_id, self.plan.name, tuple(self.plan.steps)))
        self._live = {n: _Live(p, len(p.waits)) for n, p in self.plan.steps.items()}
        self._ready.extend(live for live in self._live.values() if not live.pending)
        count = max(1, min(self.parallel, len(self._live)))
        self._workers = [asyncio.create_task(self._work()) for _ in range(count)]
        limit = asyncio.create_task(self._limit()) if self.plan.timeout_seconds else None
        ends = await asyncio.gather(*self._workers, return_exceptions=True)
        if limit:
            limit.cancel()
        for end in ends:
            if isinstance(end, Exception):
                raise end  # a worker never ends like this unless the executor itself is wrong
        for live in self._live.values():
            if live.state is None:
                self._settle(live, "cancelled")
        state = self._interruption or ("failed" if self._has_failed else "succeeded")
        outputs = await self._outputs()
        elapsed = _ms(started)
        self.emit(RunFinished(self.run_id, state, elapsed))
        steps = {name: cast(StepResult, live.result) for name, live in self._live.items()}
        return RunResult(self.run_id, self.plan.name, state, outputs, steps, elapsed, self.bug, self.audit_head)

    def interrupt(self, state: RunState = "interrupted") -> None:
        """Start no new step; steps that still run after `grace_seconds` are cancelled and rolled back."""
        if self._interruption is None:
            self._interruption = state
            self._wake(len(self._idle))
            grace = self.grace_seconds if state == "interrupted" else 0.0
            asyncio.get_running_loop().call_later(grace, self._cancel_workers)

    def _cancel_workers(self) -> None:
        for worker in self._workers:
            worker.cancel()

    async def _limit(self) -> None:
        await asyncio.sleep(self.plan.timeout_seconds or 0)
        self.interrupt("timed_out")

    # --- scheduling ------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        turns = 0
        while True:
            live = self._next()
            if live is None:
                if not self._busy:
                    self._wake(len(self._idle))
                    return
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter
                continue
            self._busy += 1
            try:
                await (self._drain(live) if live.stream else self._step(live))
            except BaseException:
                self._cancel_workers()
                raise
            finally:
                self._busy -= 1
            turns += 1
            if turns % 64 == 0:
                await asyncio.sleep(0)  # steps that never wait must not keep signals and limits from being heard

    def _next(self) -> _Live | None:
        """A step to work on: one that is ready or, when nothing else goes on, a stream that nobody reads."""
        while self._ready:
            live = self._ready.popleft()
            if live.state is None and self._may_start(live):
                return live
        return self._drainable() if not self._busy else None

    def _may_start(self, live: _Live) -> bool:
        if self._interruption:
            return False
        # a step that asks for another's end, however it ended, is meant for just this case
        return not (self._has_failed and self.plan.fail_fast) or any(w.only_end for w in live.planned.waits)

    def _drainable(self) -> _Live | None:
        if self._interruption or (self._has_failed and self.plan.fail_fast):
            return None
        return next((live for live in self._live.values() if live.stream and live.state is None), None)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._idle))):
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def _drain(self, live: _Live) -> None:
        """Read a stream to its end for what it gives besides rows."""
        assert live.stream is not None
        try:
            async for _ in live.stream.batches():
                pass
        except UpstreamError:
            pass
        except Exception as error:
            self.fail(live, self._told(live, error), None)

    def finish(self, live: _Live, state: StepState, rows: int | None = None, error: StepError | None = None) -> None:
        """Record how a step ended and tell its readers."""
        self._settle(live, state, rows, error)
        queue = [live]
        while queue:
            ended = queue.pop()
            for name, wait in self.plan.readers[ended.planned.step.id]:
                reader = self._live[name]
                if wait.is_early and ended.stream is not None:
                    continue  # it was let go when the stream opened
                if self._tell(reader, wait, cast(StepState, ended.state)):
                    queue.append(reader)
        self._wake(len(self._ready) - 1)

    def _tell(self, reader: _Live, wait: Wait, state: StepState) -> bool:
        """Count down a reader; True when this settled it without a run."""
        if state == "skipped" and wait.is_data and not wait.has_defaults:
            reader.verdict = reader.verdict or "skipped"
        elif state not in ("succeeded", "skipped") and not wait.only_end:
            reader.verdict = "blocked"
        reader.pending -= 1
        if reader.pending or reader.state is not None:
            return False
        if reader.verdict is None:
            self._ready.append(reader)
            return False
        self._settle(reader, reader.verdict)
        return True

    def _settle(self, live: _Live, state: StepState, rows: int | None = None, error: StepError | None = None) -> None:
        live.state = state
        elapsed = _ms(live.started) if live.started else 0.0
        problem = error.problem if error else None
        live.result = StepResult(
            state, live.attempts, rows, elapsed, problem, error.error_class if error else None,
            error.sqlstate if error else None,
        )  # fmt: skip
        self.emit(StepFinished(live.planned.step.id, state, live.attempts, rows, elapsed, problem))

    def fail(self, live: _Live, error: StepError, rows: int | None) -> None:
        """Record that a step failed."""
        self._has_failed = True
        self.finish(live, "timed_out" if error.error_class == "timeout" else "failed", rows, _at(live, error))

    # --- one step --------------------------------------------------------------------------------------------

    async def _step(self, live: _Live) -> None:
        step = live.planned.step
        if any(wait.is_early and self._live[wait.upstream].state == "failed" for wait in live.planned.waits):
            self.finish(live, "blocked")
            return
        if step.when:
            try:
                is_meant = all([await self._holds(condition) for condition in step.when])
            except StepError as error:  # rows that are read again may fail
                self.fail(live, error, None)
                return
            if not is_meant:
                self.finish(live, "skipped")
                return
        live.started = time.perf_counter()
        retry = step.retry or _DEFAULT_RETRY
        while True:
            live.attempts += 1
            self.emit(StepStarted(step.id, live.attempts))
            context = StepContext(step.subject.project, self.run_id, step.id, self.now, self.emit)
            try:
                value = await self._attempt(live, context)
            except UpstreamError:
                self.finish(live, "blocked")
                return
            except asyncio.CancelledError:
                self.finish(live, "cancelled")
                raise
            except Exception as error:
                told = self._told(live, error)
                wait = _delay(retry, live.attempts, told)
                if wait is None or self._interruption:
                    self.fail(live, told, context.rows)
                    return
                self.emit(StepRetrying(step.id, live.attempts + 1, wait, told.problem))
                await asyncio.sleep(wait)
                continue
            break
        if isinstance(value, Stream):
            self._open(live, value, context)
        else:
            live.value = value
            self.finish(live, "succeeded", context.rows)

    async def _holds(self, condition: Condition) -> bool:
        values = {link.text: await self._value(link.source, False, None) for link in condition.links}
        return holds(condition, values)

    async def _attempt(self, live: _Live, context: StepContext) -> Mapping[str, object] | Stream | None:
        """One attempt in one transaction: the effect of a step and whatever is recorded about it commit here."""
        step = live.planned.step
        parsed = step.checked.parsed
        if step.connections:
            values = [await self._value(link.source, link.has_default, link.default) for link in step.connections]
            parsed = step.kind.check(step.bind(values), step.subject).parsed
        limit = step.timeout_seconds
        if not step.kind.uses_database and limit is None:
            return await step.kind.run(parsed, context)
        async with AsyncExitStack() as stack:
            if limit is not None:
                in_server = step.kind.uses_database and self.store is not None and self.store.database == "postgresql"
                await stack.enter_async_context(asyncio.timeout(limit + (_CLIENT_GRACE_SECONDS if in_server else 0)))
            if step.kind.uses_database:
                assert self.store is not None, "a plan with database steps is run with a database"
                from runner.access import Access
                from runner.features.base import Scope

                session = await stack.enter_async_context(
                    self.store.session(writes=step.kind.writes, timeout_seconds=limit)
                )
                scope = Scope(self.now, self.tenant, self.run_id, step.id, self.actor)
                context._access = Access(session, scope, step.subject.models)
            value = await step.kind.run(parsed, context)
            head = await context.access.finish() if step.kind.uses_database else None
        if head is not None and (self.audit_head is None or _number(head) > _number(self.audit_head)):
            self.audit_head = head
        return value

    async def _value(self, source: tuple[str, ...], has_default: bool, default: object) -> object:
        upstream = self._live.get(source[0])
        if upstream is None:
            return await reach(self.roots[source[0]], source[1:])
        if has_default and upstream.state == "skipped":
            return default
        value = await reach(upstream.value, source[1:])
        return default if has_default and value is None else value

    def _open(self, live: _Live, stream: Stream, context: StepContext) -> None:
        """Let those readers go that need nothing but the stream."""
        watched = _Watched(stream, live, self, context, stream.rows.columns)
        live.stream = watched
        live.value = {"rows": watched}
        for name, wait in self.plan.readers[live.planned.step.id]:
            if wait.is_early:
                self._tell(self._live[name], wait, "succeeded")
        self._wake(len(self._ready) - 1)

    def _told(self, live: _Live, error: Exception) -> StepError:
        """Any failure of a step as a `StepError`."""
        if isinstance(error, StepError):
            return error
        if isinstance(error, (ValueProblem, ExceptionGroup)):
            return _refused(error)
        if isinstance(error, TimeoutError):
            limit = live.planned.step.timeout_seconds
            what = f"it ran longer than its {limit:g} s" if limit else "waiting for an answer took too long"
            return StepError(Problem("DF503", what, None, "", "raise the step's timeout"), "timeout")
        from runner.dialects.errors import is_database_error, step_error

        if is_database_error(error):
            return step_error(error, live.planned.step.subject.models)
        if isinstance(error, OSError):
            return StepError(Problem("DF505", f"the system refused: {error.strerror or type(error).__name__}"))
        self.bug = self.bug or error
        return StepError(Problem("DF599", f"a bug in dfrun ({type(error).__name__})", None, "", "please report it"))

    async def _outputs(self) -> dict[str, object]:
        outputs: dict[str, object] = {}
        for name, link in self.plan.outputs.items():
            upstream = self._live.get(link.root)
            if upstream is None or upstream.state == "succeeded":
                value = await reach(upstream.value if upstream else self.roots[link.root], link.source[1:])
                outputs[name] = await _listed(value)
            elif upstream.state == "skipped":
                outputs[name] = None
        return outputs


async def _listed(value: object) -> object:
    """Rows as a list of mappings, all else as it is, at any depth of records."""
    if isinstance(value, Rows):
        return [dict(zip(value.columns, row, strict=True)) async for batch in value.batches() for row in batch.rows]
    if isinstance(value, Mapping):
        return {key: await _listed(inner) for key, inner in value.items()}
    return value


def _refused(error: ValueProblem | ExceptionGroup[Exception]) -> StepError:
    first: BaseException = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    if not isinstance(first, ValueProblem):
        raise first
    where = ".".join(map(str, first.path))
    return StepError(Problem("DF501", f"{where}: {first.what}" if where else first.what, None, first.why, first.fix))


def _at(live: _Live, error: StepError) -> StepError:
    """The error with the step's name in front and its place in the file."""
    step, problem = live.planned.step, error.problem
    told = replace(problem, what=f"{step.id}: {problem.what}", place=problem.place or step.place)
    return StepError(told, error.error_class, error.sqlstate)


def _delay(retry: Retry, attempts: int, error: StepError) -> float | None:
    """Seconds until the next attempt (full jitter), None when there is none."""
    if attempts > retry.max or error.error_class not in retry.on:
        return None
    first = retry.delay.total_seconds() if retry.delay else _FIRST_DELAY_SECONDS
    longest = retry.max_delay.total_seconds() if retry.max_delay else _LONGEST_DELAY_SECONDS
    return random.uniform(0, min(longest, first * retry.backoff ** (attempts - 1)))


def _number(head: str) -> int:
    """Which link of its chain an audit head is."""
    return int(head.partition(":")[0])


def _ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
