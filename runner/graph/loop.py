"""`foreach`: a step, a group or a file for every item of a list, each item recorded by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner.data.rows import Batch, ListRows, Rows, SpooledRows
from runner.errors import Problem, StepError, UndecidedError
from runner.graph.inside import Whole, arrived_in
from runner.nodes.base import Checked, Context, Subject
from schemas.pipeline import ForEach
from schemas.types import ValueProblem, ValueType

if TYPE_CHECKING:
    import asyncio

INTEGER, TEXT = ValueType("integer"), ValueType("text")
ERRORS = ValueType("rows", fields={"index": INTEGER, "what": TEXT, "class": ValueType("string")})
Work = Callable[[int, object], Awaitable[Mapping[str, object]]]
"""Does one item: its number, and its value."""


@dataclass(frozen=True, slots=True)
class Items:
    """What a loop goes over, and what reaches its body from outside."""

    items: Rows | Sequence[object]
    arrived: Sequence[object]


@dataclass(eq=False)
class Loop(Whole):
    """The body, and how it goes over the items."""

    how: ForEach = field(hash=False)
    uses_database: bool = False
    name: str = "foreach"
    summary: str = "Steps for every item of a list."
    writes: bool = True
    is_repeatable: bool = False

    @property
    def collects(self) -> bool:
        """Whether the loop goes on past an item that fails."""
        return self.how.on_item_error == "collect"

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        """Lists of what the body gives, in the order of the items."""
        types = self.inside.types
        members = {n: ValueType("list", items=kind.optional() if self.collects else kind) for n, kind in types.items()}
        members |= {"results": ValueType("rows", fields=types), "count": INTEGER}
        if self.collects:
            members |= {"errors": ERRORS, "failed": INTEGER}
        raw = arguments.get("outside")
        first, *rest = arrived_in(raw) or [None]
        items = first if isinstance(first, (Rows, list, tuple)) else []
        return Checked(ValueType("record", fields=members), Items(items, rest))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        """Every item in the transaction of this attempt, one after the other: for a loop inside a transaction."""
        assert isinstance(parsed, Items)

        async def work(number: int, item: object) -> Mapping[str, object]:
            return await self.inside.walk(parsed.arrived, lambda s, c: s.kind.run(c.parsed, context), item)

        return await go_over(self, parsed, work, 1)


async def go_over(loop: Loop, items: Items, work: Work, parallel: int) -> Mapping[str, object]:
    """Do every item, at most `parallel` at a time; gives the loop's value.

    Raises the first item's `StepError` once those that run have ended; with `collect`, none.
    """
    import asyncio  # files are validated without it

    told: dict[int, Mapping[str, object] | StepError] = {}
    running: set[asyncio.Task[None]] = set()
    failed: list[StepError] = []
    broken: list[BaseException] = []
    count = 0

    async def one(number: int, item: object) -> None:
        try:
            told[number] = await work(number, item)
        except UndecidedError as unknown:
            # nothing that the loop says about errors of items decides about an outcome that nobody knows
            broken.append(UndecidedError(replace(unknown.problem, what=f"item {number}: {unknown.problem.what}")))
        except (StepError, ValueProblem) as raised:
            error = raised if isinstance(raised, StepError) else StepError(Problem("DF501", raised.what))
            problem = replace(error.problem, what=f"item {number}: {error.problem.what}")
            told[number] = error
            failed.append(StepError(problem, error.error_class, error.sqlstate))
        except Exception as error:
            broken.append(error)

    try:
        async for item in each_item(items.items):
            while len(running) >= parallel:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if broken or (failed and not loop.collects):
                break
            running.add(asyncio.create_task(one(count, item)))
            count += 1
        if running:
            await asyncio.wait(running)
    except asyncio.CancelledError:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise
    if broken:
        raise broken[0]
    if failed and not loop.collects:
        raise failed[0]
    return _gathered(loop, told, count)


def _gathered(loop: Loop, told: Mapping[int, Mapping[str, object] | StepError], count: int) -> Mapping[str, object]:
    names = tuple(loop.inside.types)
    ordered = [told[number] for number in range(count)]
    members: dict[str, object] = {
        name: [None if isinstance(each, StepError) else each.get(name) for each in ordered] for name in names
    }
    results = SpooledRows(names)
    results.append(Batch(names, [tuple(e.get(n) for n in names) for e in ordered if not isinstance(e, StepError)]))
    members |= {"results": results, "count": count}
    if loop.collects:
        errors = [(n, e.problem.what, e.error_class) for n, e in enumerate(ordered) if isinstance(e, StepError)]
        members |= {"errors": ListRows(("index", "what", "class"), [tuple(e) for e in errors]), "failed": len(errors)}
    return members


async def each_item(items: Rows | Sequence[object]) -> AsyncIterator[object]:
    """The items one after the other; of rows, each as a mapping."""
    if isinstance(items, Rows):
        async for batch in items.batches():
            for row in batch.rows:
                yield dict(zip(batch.columns, row, strict=True))
        return
    for item in items:
        yield item


def item_type(kind: ValueType, text: str) -> ValueType:
    """The type of one item. Raises `ValueProblem` for what is no list."""
    if kind.nullable:
        raise ValueProblem(f"{text!r} is {kind}, wanted a list", fix="a default, or missing: error where it arises")
    if kind.kind == "rows":
        return ValueType("record", fields=kind.fields)
    if kind.kind == "list":
        return kind.items or ValueType("any")
    if kind.kind == "any":
        return kind
    raise ValueProblem(f"{text!r} is {kind}, wanted a list or rows", why="a loop goes over the items of a list")
