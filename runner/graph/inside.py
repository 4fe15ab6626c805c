"""Steps that run one after the other under one step of the graph: the inside of a transaction, the body of a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runner.conditions import holds
from runner.data.rows import SpooledRows, Stream
from runner.errors import StepError
from runner.graph.shapes import GraphStep
from runner.nodes.base import Checked, Subject
from runner.ports import Link
from runner.reach import reach
from schemas.nodes import Port
from schemas.types import Connection, Delivered, ValueType

Act = Callable[[GraphStep, Checked], Awaitable[object]]
"""Carries a step out; gives its value."""
NO_ITEM = object()
"""The steps are the body of no loop: an `item` they read comes from outside."""
_SKIPPED, _LEFT_OUT = _GONE = object(), object()


class LeftOutError(Exception):
    """A dry run left a step out, and nothing stands in for what it would have given."""


@dataclass(eq=False)
class Inside:
    """The steps in an order they can run in, what they give, and what reaches them from outside."""

    steps: Sequence[GraphStep] = field(hash=False)
    outputs: Mapping[str, Link] = field(hash=False)
    outside: Sequence[Link] = field(hash=False)
    is_named: bool = True
    """Whether an error names the step inside."""

    @property
    def types(self) -> dict[str, ValueType]:
        """The types of what they give."""
        return {name: link.type for name, link in self.outputs.items()}

    async def walk(self, arrived: Sequence[object], act: Act, item: object = NO_ITEM) -> Mapping[str, object]:
        """Run the steps; gives the outputs. arrived: the values of `outside`, in its order."""
        given = {source_of(link): value for link, value in zip(self.outside, arrived, strict=True)}
        values: dict[str, object] = {} if item is NO_ITEM else {"item": item}
        for step in self.steps:
            try:
                values[step.id] = await self._step(step, values, given, act)
            except LeftOutError:
                values[step.id] = _LEFT_OUT
            except Exception as error:
                told = _told(step, error) if self.is_named else error
                if told is error:
                    raise
                raise told from error
        if any(values.get(link.root) is _LEFT_OUT and not link.has_default for link in self.outputs.values()):
            raise LeftOutError
        return {name: await _value(link, values, given) for name, link in self.outputs.items()}

    async def _step(
        self, step: GraphStep, values: Mapping[str, object], given: Mapping[tuple[object, ...], object], act: Act
    ) -> object:
        """The value of a step; `_SKIPPED` where a condition does not hold, or where that is what it reads."""
        for link in step.reads:
            if any(values.get(link.root) is gone for gone in _GONE) and not link.has_default:
                return values[link.root]
        for condition in step.when:
            seen = {link.text: await _value(link, values, given) for link in condition.links}
            if not holds(condition, seen):
                return _SKIPPED
        checked = step.checked
        if step.connections:
            arrived = [await _value(link, values, given) for link in step.connections]
            checked = step.kind.check(step.bind(arrived), step.subject)
        value = await act(step, checked)
        return await _kept(value) if isinstance(value, Stream) else value


@dataclass(eq=False)
class Whole:
    """Several steps that are one to the rest of the graph: a kind that fills no port of a user's."""

    inside: Inside = field(hash=False)

    @property
    def steps(self) -> Sequence[GraphStep]:
        """The steps inside."""
        return self.inside.steps

    @property
    def outputs(self) -> Mapping[str, Link]:
        """What they give."""
        return self.inside.outputs

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        """None that a user fills."""
        return {}


def outside_of(steps: Sequence[GraphStep], outputs: Mapping[str, Link], *, has_item: bool = False) -> list[Link]:
    """What reaches the steps and their outputs from outside, each value once. has_item: they are the body of a loop."""
    ids = {step.id for step in steps}
    found: dict[tuple[object, ...], Link] = {}
    for link in [*(link for step in steps for link in step.reads), *outputs.values()]:
        if link.root not in ids and not (has_item and link.root == "item"):
            found.setdefault(source_of(link), replace(link, target=("outside", len(found))))
    return list(found.values())


def source_of(link: Link) -> tuple[object, ...]:
    """What tells one arriving value from another."""
    return (link.source, link.has_default, repr(link.default))


def arrived_in(raw: object) -> list[object]:
    """The values that were delivered into a list of connections; nothing of each before the run."""
    listed = raw if isinstance(raw, list) else []
    return [each.value if isinstance(each, Delivered) else None for each in listed]


def slots_for(links: Sequence[Link]) -> tuple[Connection, ...]:
    """A place for the value of each link."""
    return tuple(Connection(link.text, link.type) for link in links)


async def _value(link: Link, values: Mapping[str, object], given: Mapping[tuple[object, ...], object]) -> object:
    if link.root not in values:
        return given[source_of(link)]
    if any(values[link.root] is gone for gone in _GONE):
        return link.default
    value = await reach(values[link.root], link.source[1:])
    return link.default if link.has_default and value is None else value


async def _kept(stream: Stream) -> Mapping[str, object]:
    """What a stream gives, read to its end: these steps follow each other."""
    rows = SpooledRows(stream.rows.columns)
    async for batch in stream.rows.batches():
        rows.append(batch)
    return {"rows": rows, **stream.rest()}


def _told(step: GraphStep, error: Exception) -> Exception:
    """What went wrong with the name of the step that it went wrong in; our own mistakes stay as they are."""
    from runner.dialects.errors import is_database_error, step_error

    told = step_error(error, step.subject.models) if is_database_error(error) else error
    if type(told) is not StepError:
        return error
    name = step.id.rpartition(".")[2]
    problem = replace(told.problem, what=f"{name}: {told.problem.what}", place=told.problem.place or step.place)
    return StepError(problem, told.error_class, told.sqlstate)
