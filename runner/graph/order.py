"""In which order the steps of a scope are built, and stand in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from runner.errors import Problem
from runner.graph.scope import Scope, roots_in
from runner.graph.shapes import Upstream
from runner.graph.wires import Wire


def steps_in_order(
    scope: Scope, wires: Mapping[str, list[Wire]], afters: Mapping[str, Mapping[str, Upstream]]
) -> list[str]:
    """The steps so that each comes after all it reads from; none, and reported, when some wait for each other."""
    steps = scope.steps
    waits = {n: {r for r in roots_in(s) if r in steps and r != n} | afters[n].keys() for n, s in steps.items()}
    try:
        return list(TopologicalSorter(waits).static_order())
    except CycleError as error:
        ring: list[str] = error.args[1]
    position = {name: index for index, name in enumerate(steps)}
    # the edge that leads back to the earliest step of the ring is the one an author would look at
    source, target = min(pairwise(ring), key=lambda edge: position[edge[1]])
    start = ring.index(target)
    way = " → ".join([*ring[start:-1], *ring[:start], target])
    wire = next((w for w in wires[target] if w.reference.root == source), None)
    key = "after" if source in afters[target] else "when" if steps[target].when else "steps"
    place = wire.place if wire else scope.file.place((*scope.at, target, key), key=True)
    why = "a step runs once, after everything it reads from or waits for"
    what = f"these steps wait for each other: {way}"
    scope.file.problems.append(Problem("DF307", what, place, why, "remove one of these connections"))
    return []


def sort_as_written(scope: Scope) -> None:
    """Put the steps that were built into the order of the file; what is inside a group stands before its door."""
    order = {scope.prefix + name: index for index, name in enumerate(scope.steps)}
    for id_ in sorted((i for i in scope.built if i.startswith(scope.prefix)), key=lambda i: _place(i, order)):
        scope.built[id_] = scope.built.pop(id_)


def _place(id_: str, order: Mapping[str, int]) -> tuple[int, int]:
    here = id_
    while here not in order and "." in here:
        here = here.rpartition(".")[0]
    return (order.get(here, -1), here == id_)
