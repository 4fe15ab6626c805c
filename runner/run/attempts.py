"""Steps that the executor does not schedule by themselves: those of the items of a loop, and undos. Each is tried,
recorded and tried again like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from runner.data.rows import Stream
from runner.errors import StepError, UndecidedError
from runner.events import StepRetrying
from runner.graph import GraphStep
from runner.graph.inside import LeftOutError
from runner.graph.loop import Items, Loop, go_over
from runner.ledger.records import AttemptNote, Ledger, StepKey, TakenOverError
from runner.nodes.base import Checked
from runner.run.context import Emit, StepContext
from runner.run.effects import Effects
from runner.run.failures import DEFAULT_RETRY, delay_seconds, step_failure
from runner.run.items import Part
from schemas.pipeline import Retry

Value = Mapping[str, object] | None


class StoppedError(Exception):
    """The run is to begin nothing more."""


@dataclass(slots=True)
class Attempts:
    """What every attempt of a run shares. is_stopped: whether the run is to begin nothing more; extend_audit: hears of
    the end of the chain of changes as an attempt left it; parts: the items of loops, where no ledger has them."""

    effects: Effects
    ledger: Ledger | None
    run_id: str
    now: datetime
    emit: Emit
    is_stopped: Callable[[], bool]
    extend_audit: Callable[[str | None], None]
    parts: dict[StepKey, Part] = field(default_factory=dict)

    async def carry_out(
        self, step: GraphStep, checked: Checked, key: StepKey, retry: Retry | None = None
    ) -> Value | Stream:
        """What the step gives, its effect committed and recorded under `key`.

        Raises the `StepError` of the last attempt, `TakenOverError`, `StoppedError`.
        """
        attempt = 0
        while True:
            if self.is_stopped():
                raise StoppedError
            attempt += 1
            context = self.context(step)
            try:
                value = await self.effects.carry_out(step, checked, context, key, None)
            except (TakenOverError, LeftOutError):
                raise
            except Exception as error:
                told = step_failure(step, error)
                wait = delay_seconds(step, retry or step.retry or DEFAULT_RETRY, attempt, told)
                await self.note(key, attempt, told, wait)
                if wait is None:
                    raise told from error
                self.emit(StepRetrying(step.id, attempt + 1, wait, told.problem))
                await asyncio.sleep(wait)
                continue
            self.extend_audit(context.audit_head)
            return value

    async def loop(self, step: GraphStep, checked: Checked, context: StepContext, part: str = "") -> Value:
        """Every item of a loop: each step of each is recorded with the item's number, so that a resumed run goes on
        inside the loop."""
        loop, items = cast(Loop, step.kind), checked.parsed
        assert isinstance(items, Items)
        is_left_out = False

        async def work(number: int, item: object) -> Mapping[str, object]:
            here = f"{part}{number}"

            async def act(inner: GraphStep, judged: Checked) -> object:
                key = StepKey(inner.id, part=here)
                if isinstance(inner.kind, Loop):
                    within = self.context(inner)
                    value = await self.loop(inner, judged, within, f"{here}.")
                    # an undo beside it may read what it gave
                    return value if step.undo is None else await self.effects.recorded(value, within, key, None)
                return await self._part(inner, judged, key)

            try:
                value = await loop.inside.walk(items.arrived, act, item)
            except LeftOutError:
                nonlocal is_left_out
                is_left_out, value = True, {}
            if not part:
                context.progress(1)
            return value

        # a dry run has one transaction, in which there is no beside
        value = await go_over(loop, items, work, 1 if self.effects.files.is_dry else loop.how.max_parallel)
        if is_left_out:
            raise LeftOutError
        return value

    async def _part(self, step: GraphStep, checked: Checked, key: StepKey) -> object:
        """One step of one item; remembered here where no ledger has it."""
        value: object = None
        try:
            value = await self.carry_out(step, checked, key)
        except UndecidedError:
            self._remember(key, None)
            raise
        self._remember(key, value)
        return value

    def _remember(self, key: StepKey, value: object) -> None:
        if self.ledger is not None:
            return

        async def given() -> object:
            return value

        self.parts[key] = Part(len(self.parts) + 1, given)

    def context(self, step: GraphStep) -> StepContext:
        """What a new attempt of the step may use."""
        files = self.effects.files.within(step.subject.project)
        return StepContext(files, self.run_id, step.id, self.now, self.emit)

    async def note(self, key: StepKey, attempt: int, error: StepError, wait: float | None) -> None:
        """Put a failed attempt into the run's history."""
        if self.ledger is not None:
            problem, waited = error.problem, round((wait or 0) * 1000)
            note = AttemptNote(key, attempt, problem.code, error.error_class, error.sqlstate, problem.what, waited)
            await self.ledger.note(note)
