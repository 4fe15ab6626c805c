"""How the effect of a step is committed, one way for each kind of effect. Here and nowhere else.

A step of the database: record, effect, output and COMMIT are one transaction. A step that reads a file as a stream:
what the file was is recorded before anyone reads it. Any other step is recorded when it is done; one that cannot be
done twice says before that it begins.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from runner.data.files import Files
from runner.data.fingerprint import check_unchanged, fingerprint
from runner.data.rows import Stream
from runner.errors import Problem, StepError, UndecidedError
from runner.graph import GraphStep
from runner.graph.inside import LeftOutError
from runner.ledger.records import Ledger, Record, StepKey
from runner.nodes.base import Checked, External, runs_dry
from runner.run.context import StepContext
from runner.run.results import LeftOut

if TYPE_CHECKING:
    from runner.dialects.store import Store
    from runner.encryption.vault import Vault
    from schemas.pipeline import Isolation

CLIENT_GRACE_SECONDS = 2.0
"""The database's own time limit comes first; the client steps in this much later."""
_LOOK_UP_WAITS = (0.0, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
Value = Mapping[str, object] | None


class _AlreadyRecordedError(Exception):
    """The step was recorded by someone else; our transaction is left without an effect."""


class Effects:
    """Carries out attempts on one database, recorded in one ledger; either may be missing."""

    def __init__(
        self, store: Store | None, ledger: Ledger | None, files: Files, tenant: str | None = None, actor: str = "",
        vault: Vault | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.ledger = ledger
        self.files = files
        self.tenant = tenant
        self.actor = actor
        self.vault = vault
        self._left_out: Counter[tuple[str, str]] = Counter()

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What a dry run did not do."""
        return tuple(LeftOut(*told, times) for told, times in self._left_out.items())

    async def carry_out(
        self, step: GraphStep, checked: Checked, context: StepContext, key: StepKey, wanted: frozenset[str] | None
    ) -> Value | Stream:
        """One attempt: what the step gives, with its effect committed and recorded.

        wanted: the members of the output that others read.
        Raises whatever the step raises, `TakenOverError`, and `LeftOutError` where a dry run stops.
        """
        if self.files.is_dry and (checked.external is not None or not runs_dry(step.kind)):
            return self._leave_out(step, checked)
        limit = step.timeout_seconds
        if limit is not None:
            limit += CLIENT_GRACE_SECONDS if step.kind.uses_database else 0
        try:
            async with asyncio.timeout(limit):
                return await self._attempt(step, checked, context, key, wanted)
        except TimeoutError as error:
            if checked.external is None or self.ledger is None:
                raise
            # whoever was asked may have acted all the same
            raise _unknown(key, checked.external, context, f"it ran longer than its {limit:g} s") from error

    async def _attempt(
        self, step: GraphStep, checked: Checked, context: StepContext, key: StepKey, wanted: frozenset[str] | None
    ) -> Value | Stream:
        if checked.parts is not None and self.ledger is not None:
            return await self._in_parts(step, checked, context, key, wanted)
        if step.kind.uses_database:
            return await self._in_transaction(step, checked, context, key, wanted)
        if checked.external is not None:
            return await self._outside(step, checked, context, key, wanted)
        value = await step.kind.run(checked.parsed, context)
        if self.ledger is None:
            return value
        if isinstance(value, Stream):
            await self._opened(value, key)
            return value
        if step.kind.is_repeatable:
            self.ledger.record_later(key, value, context.rows)
            return value
        return await self._recorded(value, context, key, wanted)

    def _leave_out(self, step: GraphStep, checked: Checked) -> Value:
        """What stands in for an act that a dry run leaves out."""
        does = checked.external.does if checked.external else f"runs {step.node}"
        self._left_out[step.id, does] += 1
        if checked.external is None or checked.external.stand_in is None:
            raise LeftOutError
        return checked.external.stand_in

    async def _in_transaction(
        self, step: GraphStep, checked: Checked, context: StepContext, key: StepKey, wanted: frozenset[str] | None
    ) -> Value | Stream:
        from runner.dialects.store import CommitLost
        from runner.encryption.sealing import open_access
        from runner.features.base import Scope

        assert self.store is not None, "a plan with database steps is run with a database"
        ledger = self.ledger
        opening = [ledger.entering(key)] if ledger else []
        label = ledger.label(key) if ledger else ""
        writes = step.kind.writes or ledger is not None
        isolation: Isolation = getattr(step.kind, "isolation", "read_committed")
        try:
            async with self.store.session(
                writes=writes,
                timeout_seconds=step.timeout_seconds,
                isolation=isolation,
                opening=opening,
                label=label,
                tenant=self.tenant,
            ) as session:
                if ledger is not None and not session.entered:
                    raise _AlreadyRecordedError
                scope = Scope(context.now, self.tenant, context.run_id, step.id, self.actor, self.vault)
                context.enter(open_access(session, scope, step.subject.models))
                value = await step.kind.run(checked.parsed, context)
                context.audit_head = await context.access.finish()
                if ledger is not None:
                    await ledger.leaving(session, key, value, wanted, context.rows)
        except _AlreadyRecordedError:
            assert ledger is not None
            return await self._restored(await ledger.found(key), context)
        except CommitLost as lost:
            if ledger is None:
                what = "the connection broke during COMMIT"
                why = "without a ledger nobody can say whether it landed"
                raise StepError(Problem("DF552", what, None, why, "look into the database"), "error") from lost
            record = await self._look_up(key)
            if record is None:
                # absent, or still on its way: the next attempt waits for it under the key that both write first
                raise cast(Exception, lost.__cause__) from None
            return await self._restored(record, context)
        if ledger is not None:
            ledger.committed(session)
        return value

    async def _in_parts(
        self, step: GraphStep, checked: Checked, context: StepContext, key: StepKey, wanted: frozenset[str] | None
    ) -> Value | Stream:
        """Each part in a transaction of its own; those that are recorded are passed over."""
        assert checked.parts is not None
        assert self.ledger is not None
        values: list[Mapping[str, object]] = []
        async for part in checked.parts.cut(checked.parsed):
            own = replace(context, rows=None, emit=lambda event: None)
            here = replace(key, part=str(len(values)))
            record = self.ledger.records.get(here)
            if record is not None:
                value: object = await self._restored(record, own)
            else:
                judged = replace(checked, parsed=checked.parts.limited(part, values))
                value = await self._in_transaction(step, judged, own, here, wanted)
            assert isinstance(value, Mapping)
            checked.parts.check(part, value)
            values.append(value)
            context.progress(own.rows or 0)
            context.audit_head = own.audit_head or context.audit_head
        return await self._recorded(await checked.parts.join(values, checked.parsed), context, key, wanted)

    async def recorded(
        self, value: Value, context: StepContext, key: StepKey, wanted: frozenset[str] | None
    ) -> Value | Stream:
        """The value of a step whose parts are recorded already, put on record as a whole."""
        return value if self.ledger is None else await self._recorded(value, context, key, wanted)

    async def _recorded(
        self, value: Value, context: StepContext, key: StepKey, wanted: frozenset[str] | None
    ) -> Value | Stream:
        from runner.dialects.store import CommitLost

        assert self.ledger is not None
        try:
            there = await self.ledger.record(key, value, wanted, context.rows)
        except CommitLost:
            there = await self._look_up(key) or await self.ledger.record(key, value, wanted, context.rows)
        return value if there is None else await self._restored(there, context)

    async def _opened(self, stream: Stream, key: StepKey) -> None:
        """Record what the file of a stream is, or see that it still is what was recorded."""
        assert self.ledger is not None
        if stream.file is None:
            return
        now = await asyncio.to_thread(fingerprint, stream.file)
        check_unchanged(stream.file, await self.ledger.source_opened(key, now), now)

    async def _outside(
        self, step: GraphStep, checked: Checked, context: StepContext, key: StepKey, wanted: frozenset[str] | None
    ) -> Value | Stream:
        """An act that no transaction can take back: say so, act, record what came of it."""
        assert checked.external is not None
        # taking a charge back is another act than the charge: it has a key of its own
        parts = [context.run_id, key.step, key.kind if key.kind == "undo" else "", key.part]
        context.external_key = ":".join(part for part in parts if part)
        if self.ledger is None:
            return await step.kind.run(checked.parsed, context)
        there = await self.ledger.intend(key, "started", None, context.external_key)
        if there is not None:
            if there.status != "started":
                return await self._restored(there, context)
            if not checked.external.is_idempotent:
                raise undecided(key, context.run_id, "it was begun, and no answer is recorded")
        try:
            value = await step.kind.run(checked.parsed, context)
        except UndecidedError as error:
            raise _unknown(key, checked.external, context, error.problem.what) from error
        except StepError:
            await self.ledger.forget(key)  # it has an answer: it did not work
            raise
        assert not isinstance(value, Stream)
        await self.ledger.settle(key, value, wanted, context.rows)
        return value

    async def _restored(self, record: Record, context: StepContext) -> Value:
        assert self.ledger is not None
        context.rows = record.rows
        return cast(Value, await self.ledger.value(record))

    async def _look_up(self, key: StepKey) -> Record | None:
        """What became of a COMMIT whose connection broke. Raises `StepError` DF552 when nobody answers."""
        assert self.ledger is not None
        for wait in _LOOK_UP_WAITS:
            await asyncio.sleep(wait)
            try:
                return await self.ledger.look_up(key)
            except Exception:
                continue
        what = "the connection broke during COMMIT, and the database does not answer since"
        fix = f"dfrun resume {self.ledger.run_id} looks up whether it landed"
        raise StepError(Problem("DF552", what, None, "", fix), "transient")


def _unknown(key: StepKey, external: External, context: StepContext, what: str) -> StepError:
    """What an act without an answer leads to: the same key makes another try harmless, or its user is asked."""
    if external.is_idempotent:
        return StepError(Problem("DF554", f"no answer came: {what}", None, "", "it is tried again"), "transient")
    return undecided(key, context.run_id, what)


def undecided(key: StepKey, run_id: str, why: str) -> UndecidedError:
    """The problem of an external step of which nobody knows whether it was done."""
    what = f"nobody knows whether this was done: {why}"
    rule = "doing it again could do it twice; a step that may be done again says `idempotent: true`"
    fix = f"done: dfrun resume {run_id} --mark-done {key.label}; not done: dfrun resume {run_id} --redo {key.label}"
    return UndecidedError(Problem("DF554", what, None, rule, fix))
