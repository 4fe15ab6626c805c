"""The items of a loop looked at again: which steps of them acted, what each gave, and what the undo of each reaches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from runner.data.rows import Rows
from runner.graph import GraphStep
from runner.graph.loop import Loop, each_item
from runner.ledger.records import Ledger, StepKey, load_records
from runner.reach import reach

Reach = Callable[[tuple[str, ...], bool, object], Awaitable[object]]
"""The value at the end of a reference, with what stands in for it."""
_Chain = tuple[GraphStep, ...]
"""Loops around a step, the outermost first."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one step of one item gave, and when it was done among the others. A step of which nobody knows whether it
    acted gave None."""

    seq: int
    value: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class DoneItem:
    """A step of one item that can be taken back."""

    step: GraphStep
    key: StepKey
    part: Part
    reach: Reach


async def recorded_parts(ledger: Ledger) -> dict[StepKey, Part]:
    """What the ledger has of the items of all loops of a run."""

    def part(key: StepKey) -> Part:
        record = records[key]
        return Part(record.seq, lambda: ledger.value(record))

    records = await load_records(ledger.store, ledger.run_id)
    return {key: part(key) for key in records if key.part and key.kind == "do"}


@dataclass(slots=True)
class DoneItems:
    """What was done for the items of one loop. outer: reaches what is around the loop."""

    loop: GraphStep
    parts: Mapping[StepKey, Part]
    outer: Reach
    _lists: dict[tuple[str, tuple[str, ...]], list[object]] = field(default_factory=dict)

    def newest_first(self) -> list[DoneItem]:
        """Every step of every item that acted and has an undo. One whose outcome is unknown is the newest."""
        chains = {step.id: (step, chain) for step, chain in _undoable(self.loop, ())}
        found = []
        for key, part in self.parts.items():
            if key.step in chains:
                step, chain = chains[key.step]
                found.append(DoneItem(step, key, part, self._reach(chain, tuple(key.part.split(".")))))
        return sorted(found, key=lambda item: item.part.seq or _LAST, reverse=True)

    def _reach(self, chain: _Chain, numbers: tuple[str, ...]) -> Reach:
        async def value(source: tuple[str, ...], has_default: bool, default: object) -> object:
            return await self._value(chain, numbers, source, has_default, default)

        return value

    async def _value(
        self, chain: _Chain, numbers: tuple[str, ...], source: tuple[str, ...], has_default: bool, default: object
    ) -> object:
        if not chain:
            return await self.outer(source, has_default, default)
        part = self.parts.get(StepKey(source[0], part=".".join(numbers)))
        if source[0] == "item":
            here = await self._item(chain, numbers)
        elif part is not None:
            here = await part.value()
        elif any(step.id == source[0] for step in _body(chain[-1])):
            here = None  # it was skipped
        else:
            return await self._value(chain[:-1], numbers[:-1], source, has_default, default)
        value = await reach(here, source[1:])
        return default if has_default and value is None else value

    async def _item(self, chain: _Chain, numbers: tuple[str, ...]) -> object:
        loop, around = chain[-1], numbers[:-1]
        if (loop.id, around) not in self._lists:
            link = loop.connections[0]  # what it goes over comes first
            items = await self._value(chain[:-1], around, link.source, link.has_default, link.default)
            assert isinstance(items, (Rows, list, tuple)), f"{loop.id} went over something"
            self._lists[loop.id, around] = [item async for item in each_item(items)]
        return self._lists[loop.id, around][int(numbers[-1])]


_LAST = 2**63


def _body(loop: GraphStep) -> tuple[GraphStep, ...]:
    assert isinstance(loop.kind, Loop)
    return tuple(loop.kind.steps)


def leaves_of(step: GraphStep) -> Iterator[GraphStep]:
    """The step itself; of a loop, those that are done for each item, at any depth."""
    if not isinstance(step.kind, Loop):
        yield step
        return
    for inner in _body(step):
        yield from leaves_of(inner)


def _undoable(loop: GraphStep, around: _Chain) -> Iterator[tuple[GraphStep, _Chain]]:
    chain = (*around, loop)
    for step in _body(loop):
        if isinstance(step.kind, Loop):
            yield from _undoable(step, chain)
        elif step.undo is not None:
            yield step, chain
