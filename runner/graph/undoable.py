"""A step that keeps what it needs to be taken back, and the step that takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.nodes.base import Checked, Context, Kind, Subject
from runner.run.recorded import KEPT
from schemas.nodes import Port
from schemas.types import ValueType


class Undoable:
    """A kind whose writes are kept beside its value, under a name that no reference reaches."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.name, self.summary = kind.name, kind.summary
        self.uses_database, self.writes = kind.uses_database, kind.writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kind, name)

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        """The kind's own ports."""
        return self._kind.ports(subject, arguments)

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        """The kind's own judgement."""
        return self._kind.check(arguments, subject)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | None:
        """The kind's own work, every write of it kept."""
        from runner.run.recording import Recorder, packed

        recorder = Recorder.over(context.access)
        value = await self._kind.run(parsed, _Within(context, recorder))
        assert value is None or isinstance(value, Mapping)
        return {**(value or {}), KEPT: packed(recorder.effects)} if recorder.effects else value


class _Within:
    """A context whose tables are those of the recorder."""

    def __init__(self, context: Context, access: Any) -> None:
        self._context = context
        self.access = access

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class TakeBack:
    """Takes back what an `Undoable` step wrote; gives how many rows."""

    name = "undo"
    summary = "What a step wrote, taken back."
    uses_database = True
    writes = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        """None that a user fills."""
        return {}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        """What is taken back, and the models that it is about."""
        integer = ValueType("integer")
        fields = {"rows": integer, "kept": integer}
        return Checked(ValueType("record", fields=fields), (arguments.get("effects"), subject.models))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        """The inverse of each effect, the last one first."""
        from runner.run.recording import take_back, unpacked

        assert isinstance(parsed, tuple)
        effects, models = parsed
        told = await take_back(context.access, unpacked(effects), models)
        if told.kept:
            context.log(
                "warning", "values that someone else had changed since were left as they are", {"values": told.kept}
            )
        return {"rows": told.rows, "kept": told.kept}
