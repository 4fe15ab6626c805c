"""What is looked for once all steps of a graph are there: what goes nowhere, and what nobody can judge before a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.errors import Place, Problem
from runner.graph.doors import Door, Parameters
from runner.graph.scope import File
from runner.graph.shapes import GraphStep
from runner.graph.transaction import Transaction
from runner.ports import Link

Steps = Mapping[str, GraphStep]


def lost_rejects(file: File, steps: Steps, outputs: Mapping[str, Link]) -> Iterator[Problem]:
    """Rows that are set aside go somewhere, or their number is bounded: none vanishes without a word."""
    read = {link.source[:2] for link in _links(steps, outputs)}
    for step in _every(steps):
        gives = step.checked.output.fields or {}
        if isinstance(step.kind, (Door, Parameters, Transaction)) or "rejects" not in gives:
            continue
        if (step.id, "rejects") not in read and "max_rejects" not in step.arguments:
            name = step.id.rpartition(".")[2]
            what, why = f"the rejects of {name!r} go nowhere", "rows that are set aside must be seen by someone"
            fix = f"connect {name}.rejects to a csv.write, or set max_rejects"
            yield Problem("DF314", what, _place(file, step, "rejects"), why, fix)


def unknown_columns(file: File, steps: Steps, outputs: Mapping[str, Link]) -> Iterator[Problem]:
    """A statement of the user's own whose result is read, though nobody has said what it gives: a warning."""
    links = [link for link in _links(steps, outputs) if link.source[1:] != ("count",)]
    for step in _every(steps):
        if step.kind.name == "sql.query" and "columns" not in step.arguments:
            reads = [link for link in links if link.root == step.id]
            if reads:
                name = step.id.rpartition(".")[2]
                what = f"what {name!r} gives is known at run time only"
                why = f"without `columns`, the types of what reads {reads[0].text} are judged while it runs"
                place = _place(file, step, "sql")
                yield Problem("DF322", what, place, why, "columns: {name: type, …}", "warning")


def _every(steps: Steps) -> list[GraphStep]:
    return [inner for step in steps.values() for inner in step.with_inside()]


def _links(steps: Steps, outputs: Mapping[str, Link]) -> Iterator[Link]:
    """Everything that reads something: steps, what is inside them, and outputs."""
    for step in _every(steps):
        yield from step.reads
        yield from getattr(step.kind, "outputs", {}).values()
    yield from outputs.values()


def _place(file: File, step: GraphStep, key: str) -> Place | None:
    """Where the key stands under `with`, where that can be told."""
    return step.place if "." in step.id else file.place(("steps", step.id, "with", key))
