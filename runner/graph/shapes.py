"""What a checked pipeline looks like: its steps with their kinds, every edge with its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from runner.arguments import deliver_into
from runner.conditions import Condition
from runner.errors import Place, Problem
from runner.nodes.base import Checked, Kind, Subject
from runner.ports import Link
from schemas.types import Connection, ValueType

if TYPE_CHECKING:
    import networkx as nx

    from schemas.pipeline import Param, Retry, Secret
    from schemas.shapes import ModelShape

RUN = ValueType(
    "record",
    fields={
        "id": ValueType("string"),
        "pipeline": ValueType("string"),
        "scheduled_at": ValueType("datetime"),
        "scheduled_date": ValueType("date"),
        "tenant": ValueType("string", nullable=True),
    },
)
"""What `run.…` gives. Without a schedule, `scheduled_at` is the moment the run started."""

Upstream = Literal["succeeded", "finished"]
Phase = Literal["main", "failure", "finally"]
"""When a step runs: with the others, when they have failed, or last."""


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step, made sure of. `arguments` holds a `Connection` wherever a value arrives; `connections` says from
    where, in the order `bind` wants the values."""

    id: str
    node: str
    kind: Kind
    subject: Subject
    arguments: dict[str, object] = field(hash=False)
    checked: Checked = field(hash=False)
    connections: tuple[Link, ...] = ()
    slots: tuple[Connection, ...] = field(default=(), hash=False)
    after: Mapping[str, Upstream] = field(default_factory=dict, hash=False)
    when: tuple[Condition, ...] = ()
    undo: Literal["auto", "items"] | GraphStep | None = None
    """`auto`: by what the step wrote; `items`: a loop, whose body says it; else a step of its own."""
    phase: Phase = "main"
    retry: Retry | None = None
    timeout_seconds: float | None = None
    place: Place | None = None

    @property
    def reads(self) -> tuple[Link, ...]:
        """Everything the step reads: its connections, and what its conditions are about."""
        if not self.when:
            return self.connections
        return (*self.connections, *(link for condition in self.when for link in condition.links))

    @property
    def writes(self) -> bool:
        """Whether the step, or one inside it, changes anything."""
        inside = getattr(self.kind, "steps", None)
        if inside is not None:
            return any(step.writes for step in inside)
        return self.kind.writes and not self.checked.only_reads

    def with_inside(self) -> Iterator[GraphStep]:
        """The step and, of a transaction or a loop, the steps inside it, at any depth."""
        yield self
        for step in getattr(self.kind, "steps", ()):
            yield from step.with_inside()

    def bind(self, values: list[object]) -> dict[str, object]:
        """The arguments with the values of `connections`, in their order, delivered where they belong."""
        by_slot = {id(slot): value for slot, value in zip(self.slots, values, strict=True)}
        bound = deliver_into(self.arguments, by_slot)
        assert isinstance(bound, dict)
        return bound


@dataclass(frozen=True)
class Graph:
    """A whole pipeline, checked: its steps in the order of the file, and what it takes and gives."""

    name: str
    steps: Mapping[str, GraphStep] = field(hash=False)
    params: Mapping[str, Param] = field(hash=False)
    secrets: Mapping[str, Secret] = field(hash=False)
    models: Mapping[str, ModelShape] = field(hash=False)
    outputs: Mapping[str, Link] = field(hash=False)
    fail_fast: bool = True
    timeout_seconds: float | None = None
    warnings: tuple[Problem, ...] = ()
    undoes: tuple[str, ...] = ()
    """The steps that a failure takes back, in the order of the file."""

    @cached_property
    def digraph(self) -> nx.MultiDiGraph[str]:
        """The steps as a MultiDiGraph in file order: data edges are keyed by the target port's path and carry their
        typed `link`, control edges carry `after`.

        A plain DiGraph would merge two connections between the same two steps. Made when it is asked for: importing
        networkx takes a third of the time that checking a small file does.
        """
        import networkx as nx

        digraph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        digraph.add_nodes_from(self.steps)
        for name, step in self.steps.items():
            for link in step.reads:
                if link.root in self.steps:
                    digraph.add_edge(link.root, name, key=".".join(map(str, link.target)), link=link)
            for upstream, state in step.after.items():
                digraph.add_edge(upstream, name, key=f"after {upstream}", after=state)
        return digraph
