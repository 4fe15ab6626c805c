"""Where a name means something: the steps of a file or of a group, by the names they have inside, and the ids they have
in the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runner.conditions import Condition, references_in
from runner.errors import Place, Problem, did_you_mean
from runner.graph.shapes import RUN, GraphStep, Upstream
from runner.ports import Reference, reach_type
from schemas.types import ValueProblem, ValueType

if TYPE_CHECKING:
    from runner.catalog import Catalog
    from runner.source import Document
    from schemas.pipeline import Pipeline, Retry, Step
    from schemas.settings import HttpHost

At = tuple[str | int, ...]
OWN_ROOTS = ("params", "secrets", "run")


@dataclass(slots=True)
class File:
    """One pipeline file while it is checked. `prefix` begins the ids of its steps: empty for the file that is run.
    `params` is where its parameters stand: the root of that name, or the step that was given them."""

    document: Document
    pipeline: Pipeline
    catalog: Catalog
    project: Path
    prefix: str = ""
    params: str = "params"
    hosts: tuple[HttpHost, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    types: dict[str, ValueType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        params = {name: param.value_type() for name, param in self.pipeline.params.items()}
        secrets = {name: ValueType("secret") for name in self.pipeline.secrets}
        self.types = {
            "params": ValueType("record", fields=params),
            "secrets": ValueType("record", fields=secrets),
            "run": RUN,
        }

    def report(self, code: str, at: At, key: bool, what: str, why: str = "", fix: str = "") -> None:
        """A problem at a place of this file."""
        self.problems.append(Problem(code, what, self.document.place(at, key=key), why, fix))

    def place(self, at: At, key: bool = False) -> Place:
        """A place of this file."""
        return self.document.place(at, key=key)


@dataclass(slots=True)
class Scope:
    """The steps that know each other by name, and those around them that they see.

    at: where their mapping stands in the file. group: what the scope around calls this one. guards and after: what
    every step inside stands under. built: where finished steps go, by id. item: of the loop that this is the body of.
    own: the id and the type of what `self` means.
    """

    file: File
    steps: Mapping[str, Step]
    at: At
    prefix: str
    built: dict[str, GraphStep]
    outer: Scope | None = None
    group: str = ""
    types: dict[str, ValueType] = field(default_factory=dict)
    guards: tuple[Condition, ...] = ()
    after: Mapping[str, Upstream] = field(default_factory=dict)
    retry: Retry | None = None
    timeout_seconds: float | None = None
    is_transaction: bool = False
    item: ValueType | None = None
    own: tuple[str, ValueType] | None = None

    def find(self, root: str) -> Scope | None:
        """The nearest scope that has a step of that name."""
        here: Scope | None = self
        while here is not None and root not in here.steps:
            here = here.outer
        return here

    def item_type(self) -> ValueType | None:
        """What `item` is here; None outside of any loop."""
        here: Scope | None = self
        while here is not None and here.item is None:
            here = here.outer
        return here.item if here is not None else None

    def is_inside(self, scope: Scope, name: str) -> bool:
        """Whether this scope lies in the group that `scope` calls `name`."""
        here: Scope | None = self
        while here is not None and here.outer is not None:
            if here.outer is scope and here.group == name:
                return True
            here = here.outer
        return False

    def known(self) -> list[str]:
        """Every name that a reference may begin with, the nearest first."""
        names: list[str] = []
        here: Scope | None = self
        while here is not None:
            names += [name for name in here.steps if name not in names]
            here = here.outer
        return [*names, *OWN_ROOTS]

    def source(self, reference: Reference) -> tuple[str, ...]:
        """Where the value comes from, as the graph says it."""
        found = self.find(reference.root)
        if found is not None:
            return (found.prefix + reference.root, *reference.members)
        if reference.root == "self" and self.own is not None:
            return (self.own[0], *reference.members)
        if reference.root == "params":
            return (self.file.params, *reference.members)
        if reference.root == "secrets":
            return ("secrets", self.file.prefix + reference.members[0], *reference.members[1:])
        return (reference.root, *reference.members)

    def type_of(self, reference: Reference) -> ValueType:
        """What the reference reaches. Raises `ValueProblem` without a path when it leads nowhere."""
        found = self.find(reference.root)
        if found is not None:
            root = found.types[reference.root]
            return root if root.kind == "secret" else reach_type(root, reference.members, reference.root)
        around = self.item_type() if reference.root == "item" else self.own[1] if self.own else None
        if reference.root in ("item", "self") and around is not None:
            return reach_type(around, reference.members, reference.root)
        root, name = self.file.types[reference.root], reference.members[0]
        assert root.fields is not None
        if name not in root.fields:
            word = {"params": "parameter", "secrets": "secret", "run": "value"}[reference.root]
            fix = did_you_mean(name, root.fields, prefix=f"{reference.root}.") or f"declare it under {reference.root}:"
            raise ValueProblem(f"there is no {word} {name!r}", fix=fix)
        return reach_type(root.fields[name], reference.members[1:], f"{reference.root}.{name}")

    def knows(self, reference: Reference, step: str | None, at: At, key: bool = False) -> bool:
        """Whether the reference begins with something that is there; what is wrong is reported."""
        root, report = reference.root, self.file.report
        found = self.find(root)
        if found is not None:
            if found is self and root == step:
                why = "a step runs once, after everything it reads from"
                report("DF307", at, key, f"{step!r} connects to itself", why)
                return False
            if self.is_inside(found, root):
                why = "a group has its outputs when all its steps are done"
                report("DF307", at, key, f"{reference.text!r} is the group that this step is in", why)
                return False
            return True
        if root in OWN_ROOTS:
            if reference.members:
                return True
            report("DF312", at, key, f"{root!r} alone is not a value", fix=f"name one: {root}.…")
            return False
        if (root == "item" and self.item_type() is not None) or (root == "self" and self.own is not None):
            return True
        if root in ("item", "self"):
            inside = "foreach" if root == "item" else "undo"
            report("DF303", at, key, f"{root!r} means something inside {inside} only")
            return False
        rest = "".join(f".{m}" for m in reference.members)
        hint = did_you_mean(root, self.known())
        if root in self.file.pipeline.params:
            hint = f"did you mean params.{root}?"
        elif hint.endswith("?"):
            hint = hint[:-1] + rest + "?"
        hidden = next((n for n, s in self.steps.items() if s.steps and root in s.steps), None)
        if hidden is not None:
            hint = f"outputs: {{…: {reference.text}}} of {hidden!r} is the door"
        report(
            "DF303", at, key, f"there is no step {root!r}", "the inside of a group is hidden" if hidden else "", hint
        )
        return False


def roots_in(step: Step) -> Iterator[str]:
    """Every name that a step, or a step inside it, begins a reference with."""
    for written in step.inputs.values():
        source = written.get("from") if isinstance(written, Mapping) else written
        if isinstance(source, str):
            yield source.partition(".")[0]
    yield from (text.partition(".")[0] for text, _ in references_in(step.when))
    if step.foreach is not None:
        yield step.foreach.in_.partition(".")[0]
    for inner in (step.steps or {}).values():
        yield from (root for root in roots_in(inner) if root not in (step.steps or {}))
