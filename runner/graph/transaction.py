"""A group in one transaction: its steps run one after the other on one connection, all of them or none, and are tried
again as one.

To the rest of the program it is one step: one attempt, one commit, one record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from runner.conditions import holds
from runner.errors import StepError
from runner.graph.shapes import GraphStep
from runner.nodes.base import Checked, Context, Subject
from runner.ports import Link
from runner.reach import reach
from runner.rows import SpooledRows, Stream
from schemas.nodes import Port
from schemas.pipeline import Isolation
from schemas.types import Delivered, ValueType

_SKIPPED = object()


@dataclass(eq=False)
class Transaction:
    """The steps in an order they can run in, what the group gives, and what reaches it from outside."""

    steps: Sequence[GraphStep] = field(hash=False)
    outputs: Mapping[str, Link] = field(hash=False)
    outside: Sequence[Link] = field(hash=False)
    isolation: Isolation
    name: str = "transaction"
    summary: str = "Several steps in one transaction."
    uses_database: bool = True
    writes: bool = True
    is_repeatable: bool = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        arrived = arguments.get("outside")
        values = (
            [each.value if isinstance(each, Delivered) else None for each in arrived]
            if isinstance(arrived, list)
            else []
        )
        fields = {name: link.type for name, link in self.outputs.items()}
        return Checked(ValueType("record", fields=fields), values)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, list)
        given = {source_of(link): value for link, value in zip(self.outside, parsed, strict=True)}
        values: dict[str, object] = {}
        for step in self.steps:
            try:
                values[step.id] = await self._run(step, values, given, context)
            except Exception as error:
                raise _told(step, error) from error
        return {name: await _value(link, values, given) for name, link in self.outputs.items()}

    async def _run(
        self,
        step: GraphStep,
        values: Mapping[str, object],
        given: Mapping[tuple[object, ...], object],
        context: Context,
    ) -> object:  # fmt: skip
        """The value of a step; `_SKIPPED` where a condition does not hold or what it reads was skipped."""
        if any(values.get(link.root) is _SKIPPED and not link.has_default for link in step.reads):
            return _SKIPPED
        for condition in step.when:
            seen = {link.text: await _value(link, values, given) for link in condition.links}
            if not holds(condition, seen):
                return _SKIPPED
        parsed = step.checked.parsed
        if step.connections:
            arrived = [await _value(link, values, given) for link in step.connections]
            parsed = step.kind.check(step.bind(arrived), step.subject).parsed
        value = await step.kind.run(parsed, context)
        return await _kept(value) if isinstance(value, Stream) else value


def _told(step: GraphStep, error: Exception) -> Exception:
    """What went wrong with the name of the step that it went wrong in; our own mistakes stay as they are."""
    from runner.dialects.errors import is_database_error, step_error

    told = step_error(error, step.subject.models) if is_database_error(error) else error
    if not isinstance(told, StepError):
        return error
    name = step.id.rpartition(".")[2]
    problem = replace(told.problem, what=f"{name}: {told.problem.what}", place=step.place)
    return StepError(problem, told.error_class, told.sqlstate)


def _listed(raw: object) -> list[object]:
    return raw if isinstance(raw, list) else []


async def _value(link: Link, values: Mapping[str, object], given: Mapping[tuple[object, ...], object]) -> object:
    if link.root not in values:
        return given[source_of(link)]
    if values[link.root] is _SKIPPED:
        return link.default
    value = await reach(values[link.root], link.source[1:])
    return link.default if link.has_default and value is None else value


async def _kept(stream: Stream) -> Mapping[str, object]:
    """What a stream gives, read to its end: the steps of a transaction follow each other."""
    rows = SpooledRows(stream.rows.columns)
    async for batch in stream.rows.batches():
        rows.append(batch)
    return {"rows": rows, **stream.rest()}


def source_of(link: Link) -> tuple[object, ...]:
    """What tells one arriving value from another."""
    return (link.source, link.has_default, repr(link.default))
