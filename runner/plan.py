"""A checked graph becomes a plan: frozen steps that know what they wait for. Opens no database; `run` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runner.errors import DefinitionError, Problem, did_you_mean
from runner.graph import Graph, GraphStep
from runner.ports import Link


@dataclass(frozen=True, slots=True)
class Wait:
    """What one step waits for in another: its data, its success, or just its end."""

    upstream: str
    is_data: bool = False
    has_defaults: bool = False
    """Every connection between the two brings a default: the reader runs though the other was skipped."""
    only_end: bool = False
    """`after: {step: finished}`: the reader runs however the other ended."""
    is_early: bool = False
    """Only streamed members are read: the reader starts when the stream is open."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step made ready to run."""

    step: GraphStep
    waits: tuple[Wait, ...]
    wanted: frozenset[str] | None = None
    """The members of its output that other steps or the pipeline's outputs read; None: all of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in the order of the file. `readers` are the steps that wait for each; `identity` names this very
    definition (a hash of its text and its models)."""

    name: str
    identity: str
    steps: Mapping[str, PlannedStep] = field(hash=False)
    readers: Mapping[str, tuple[tuple[str, Wait], ...]] = field(hash=False)
    outputs: Mapping[str, Link] = field(hash=False)
    fail_fast: bool = True
    timeout_seconds: float | None = None
    undoes: tuple[str, ...] = ()
    """The steps that a failure takes back."""

    @property
    def uses_database(self) -> bool:
        """Whether any step needs a database."""
        return any(planned.step.kind.uses_database for planned in self.steps.values())


def build_plan(graph: Graph, identity: str, only: Sequence[str] = ()) -> Plan:
    """The plan of a graph; with `only`, of these steps and all they need.

    Raises `DefinitionError` DF401 when `only` names no step.
    """
    for name in only:
        if name not in graph.steps:
            fix = did_you_mean(name, graph.steps)
            raise DefinitionError(Problem("DF401", f"--only: there is no step {name!r}", None, "", fix))
    names = _needed(graph, only) | _last(graph) if only else set(graph.steps)
    wanted = _wanted(graph)
    steps = {n: PlannedStep(s, tuple(_waits(graph, s)), wanted[n]) for n, s in graph.steps.items() if n in names}
    readers: dict[str, list[tuple[str, Wait]]] = {name: [] for name in steps}
    for name, planned in steps.items():
        for wait in planned.waits:
            readers[wait.upstream].append((name, wait))
    outputs = {n: link for n, link in graph.outputs.items() if link.root in steps or link.root not in graph.steps}
    return Plan(
        graph.name, identity, steps, {n: tuple(r) for n, r in readers.items()}, outputs, graph.fail_fast,
        graph.timeout_seconds, tuple(n for n in graph.undoes if n in steps),
    )  # fmt: skip


def _needed(graph: Graph, only: Sequence[str]) -> set[str]:
    import networkx as nx

    needed = set(only)
    for name in only:
        needed |= nx.ancestors(graph.digraph, name)
    return needed


def _last(graph: Graph) -> set[str]:
    """The steps that run after the others, whatever those are."""
    return {name for name, step in graph.steps.items() if step.phase != "main"}


def _wanted(graph: Graph) -> dict[str, frozenset[str] | None]:
    """For each step the members of its output that someone reads."""
    read: dict[str, set[str] | None] = {name: set() for name in graph.steps}
    every = [inner for step in graph.steps.values() for inner in step.with_inside()]
    undos = [step.undo for step in every if isinstance(step.undo, GraphStep)]
    links = [*(link for step in (*graph.steps.values(), *undos) for link in step.reads), *graph.outputs.values()]
    for link in links:
        members = read.get(link.root)
        if members is not None:
            if len(link.source) == 1:
                read[link.root] = None  # the whole value
            else:
                members.add(link.source[1])
    return {name: None if members is None else frozenset(members) for name, members in read.items()}


def _waits(graph: Graph, step: GraphStep) -> list[Wait]:
    data: dict[str, list[Link]] = {}
    for link in step.reads:
        if link.root in graph.steps:
            data.setdefault(link.root, []).append(link)
    waits = [
        Wait(
            upstream,
            is_data=True,
            has_defaults=all(link.has_default for link in links),
            is_early=upstream not in step.after and all(_is_streamed(graph, link) for link in links),
        )
        for upstream, links in data.items()
    ]
    waits += [Wait(u, only_end=state == "finished") for u, state in step.after.items() if u not in data]
    return waits


def _is_streamed(graph: Graph, link: Link) -> bool:
    streaming = graph.steps[link.root].checked.streaming
    return len(link.source) == 2 and link.source[1] in streaming
