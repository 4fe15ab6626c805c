"""A pipeline and a catalog become a checked graph: every step with its kind, every edge with its type.

Opens no file and no database; other files that a step names come from the caller. All problems of a pipeline are found
here, before anything runs; a step that is wrong gives what it would give without its mistakes, else `any`, so that each
mistake is told, and once.

A group becomes its steps, under ids such as `book.order`, and a door that gives its outputs; another file likewise,
with a step that holds its parameters. A group in one transaction becomes one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.arguments import copy_literals
from runner.conditions import Condition
from runner.errors import DefinitionError, Problem
from runner.graph.doors import Door, Parameters
from runner.graph.inside import Inside, outside_of, slots_for
from runner.graph.loop import Loop, item_type
from runner.graph.loose_ends import lost_rejects, unknown_columns
from runner.graph.node import check_arguments, fill, node_step
from runner.graph.order import sort_as_written, steps_in_order
from runner.graph.params import parameter_problems
from runner.graph.scope import At, File, Scope
from runner.graph.shapes import Graph, GraphStep, Phase, Upstream
from runner.graph.transaction import Transaction
from runner.graph.undo import Undos
from runner.graph.wires import Wire, afters_of, condition_of, link_at, wires_of
from runner.nodes.base import Subject
from runner.ports import Link
from schemas.pipeline import Retry as RetryDeclaration
from schemas.shapes import ModelShape
from schemas.types import Connection, ValueProblem, ValueType

if TYPE_CHECKING:
    from runner.catalog import Catalog
    from runner.source import Document
    from schemas.pipeline import Pipeline, Retry, Secret, Step
    from schemas.settings import HttpHost

_NO_RETRY = RetryDeclaration(max=0)
"""A loop: its items are tried again, each by itself."""
Parts = tuple["Document", "Pipeline", "Catalog", Path]
"""One pipeline file, read: its text, what it declares, its models, and its folder."""
Files = Callable[[Path, str], Parts]
"""Reads the pipeline file that a step of a file in this folder names. Raises `DefinitionError`."""


def no_files(folder: Path, name: str) -> Parts:
    """For a pipeline that stands alone."""
    raise DefinitionError(Problem("DF101", f"there is no file {name!r}"))


def build_graph(
    document: Document, pipeline: Pipeline, catalog: Catalog, project: Path, files: Files = no_files,
    hosts: tuple[HttpHost, ...] = (),
) -> Graph:  # fmt: skip
    """The checked graph of a pipeline; `hosts` are those that its requests may go to.

    Raises `DefinitionError` with every problem of the file, and of the files that its steps name."""
    return _Builder(files).build(File(document, pipeline, catalog, project, hosts=hosts))


class _Builder:
    def __init__(self, files: Files) -> None:
        self.files = files
        self.steps: dict[str, GraphStep] = {}
        self.secrets: dict[str, Secret] = {}
        self.models: dict[str, ModelShape] = {}
        self.may_skip: set[str] = set()
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.chain: list[File] = []
        self.undos = Undos(self.steps)

    def build(self, file: File) -> Graph:
        scope = self._file(file)
        outputs: dict[str, Link] = {}
        undoes: tuple[str, ...] = ()
        if scope.types:
            outputs = self._links(scope, file.pipeline.outputs, ("outputs",))
            failure = file.pipeline.on_failure
            undoes = self.undos.chosen(scope, failure.undo)
            self._phase(scope, failure.steps, ("on_failure", "steps"), "failure")
            self._phase(scope, file.pipeline.finally_, ("finally",), "finally")
            self.problems += lost_rejects(file, self.steps, outputs)
            self.warnings += unknown_columns(file, self.steps, outputs)
            if file.pipeline.ledger == "off":
                self._refuse_parts(self.steps.values(), "under ledger: off", "the ledger knows which parts are done")
        if self.problems:
            raise DefinitionError(self.problems)
        pipeline = file.pipeline
        return Graph(
            name=pipeline.name,
            steps=self.steps,
            params=pipeline.params,
            secrets=self.secrets,
            models=self.models,
            outputs=outputs,
            fail_fast=pipeline.fail_fast,
            timeout_seconds=pipeline.timeout.total_seconds() if pipeline.timeout else None,
            warnings=tuple(self.warnings),
            undoes=undoes,
        )

    def _phase(self, scope: Scope, steps: Mapping[str, Step], at: At, phase: Phase) -> None:
        """Steps that run after the others: they see those, and are seen by none."""
        if not steps:
            return
        built: dict[str, GraphStep] = {}
        around = Scope(
            scope.file, steps, at, f"{at[0]}.", built, scope, retry=scope.retry, timeout_seconds=scope.timeout_seconds
        )
        self._scope(around)
        self.steps |= {id_: replace(step, phase=phase) for id_, step in built.items()}

    def _file(
        self, file: File, after: Mapping[str, Upstream] | None = None, guards: tuple[Condition, ...] = ()
    ) -> Scope:
        """The steps of a file, built; its scope has no types where they wait for each other."""
        file.problems, file.warnings = self.problems, self.warnings
        pipeline = file.pipeline
        self.problems += parameter_problems(file.document, pipeline.params)
        self.secrets |= {file.prefix + name: secret for name, secret in pipeline.secrets.items()}
        self.models |= file.catalog.models
        timeout = pipeline.defaults.timeout.total_seconds() if pipeline.defaults.timeout else None
        scope = Scope(
            file, pipeline.steps, ("steps",), file.prefix, self.steps, guards=guards, after=after or {},
            retry=pipeline.defaults.retry, timeout_seconds=timeout,
        )  # fmt: skip
        self.chain.append(file)
        self._scope(scope)
        self.chain.pop()
        return scope

    def _scope(self, scope: Scope) -> None:
        """The steps of a scope, each after all it reads from, then in the order of the file."""
        wires = {n: list(self._wires(scope, n, s)) for n, s in scope.steps.items()}
        afters = {name: dict(afters_of(scope, name)) for name in scope.steps}
        for name in steps_in_order(scope, wires, afters):
            scope.types.setdefault(name, ValueType("any"))
            after = dict(scope.after) | {scope.prefix + upstream: state for upstream, state in afters[name].items()}
            condition = condition_of(scope, name)
            when = (*scope.guards, condition) if condition else scope.guards
            self._step(scope, name, wires[name], after, when)
        sort_as_written(scope)

    def _wires(self, scope: Scope, name: str, step: Step) -> Iterator[Wire]:
        body = replace(scope, item=ValueType("any")) if step.foreach else scope
        return wires_of(body, name, step.inputs, (*scope.at, name, "inputs"))

    def _step(
        self, scope: Scope, name: str, wires: list[Wire], after: Mapping[str, Upstream], when: tuple[Condition, ...]
    ) -> None:
        step, before = scope.steps[name], len(self.problems)
        make = self._loop if step.foreach is not None else self._part
        built = make(scope, name, wires, after, when)
        if built is None:
            return
        scope.types[name] = built.checked.output
        if step.foreach is None:  # the body of a loop has its undo already
            built = self.undos.given(scope, name, built)
        if len(self.problems) > before:
            return
        scope.built[built.id] = built
        own = built.when[len(scope.guards) :]
        if own or any(link.root in self.may_skip and not link.has_default for link in built.reads):
            self.may_skip.add(built.id)

    def _part(
        self, scope: Scope, name: str, wires: list[Wire], after: Mapping[str, Upstream], when: tuple[Condition, ...]
    ) -> GraphStep | None:
        step = scope.steps[name]
        if step.steps is not None:
            group = self._transaction if step.transaction else self._group
            return group(scope, name, after, when)
        if step.pipeline is not None:
            return self._pipeline(scope, name, wires, after, when)
        return node_step(scope, name, wires, after, when)

    # --- what has an inside ------------------------------------------------------------------------------------

    def _group(
        self, scope: Scope, name: str, after: Mapping[str, Upstream], when: tuple[Condition, ...]
    ) -> GraphStep | None:
        inside = self._inside(scope, name, scope.prefix + name + ".", scope.built, after, when)
        self._scope(inside)
        outputs = self._links(inside, scope.steps[name].outputs, (*scope.at, name, "outputs"))
        return self._door(scope, name, "group", inside, outputs, after, when)

    def _inside(
        self, scope: Scope, name: str, prefix: str, built: dict[str, GraphStep], after: Mapping[str, Upstream],
        when: tuple[Condition, ...],
    ) -> Scope:  # fmt: skip
        step = scope.steps[name]
        assert step.steps is not None
        timeout = step.timeout.total_seconds() if step.timeout else scope.timeout_seconds
        return Scope(
            scope.file, step.steps, (*scope.at, name, "steps"), prefix, built, scope, name, guards=when, after=after,
            retry=step.retry or scope.retry, timeout_seconds=timeout, is_transaction=scope.is_transaction,
        )  # fmt: skip

    def _door(
        self, scope: Scope, name: str, node: str, inside: Scope, outputs: Mapping[str, Link],
        after: Mapping[str, Upstream], when: tuple[Condition, ...],
    ) -> GraphStep:  # fmt: skip
        """The step that gives what a group gives, once all of its steps are done. What may be skipped inside may be
        null outside."""
        links, types = [], {}
        for output, link in outputs.items():
            is_open = link.root in self.may_skip
            types[output] = link.type.optional() if is_open else link.type
            links.append(replace(link, type=types[output], has_default=is_open))
        slots = tuple(Connection(link.text, link.type) for link in links)
        kind = Door(types, node)
        ids = dict.fromkeys(self._inner_ids(inside), "succeeded")
        waits: dict[str, Upstream] = {**after, **ids}  # type: ignore[dict-item]
        arguments: dict[str, object] = dict(zip(outputs, slots, strict=True))
        subject = Subject(None, scope.file.catalog.models, scope.file.project)
        place = scope.file.place((*scope.at, name), key=True)
        return GraphStep(
            scope.prefix + name, node, kind, subject, arguments, kind.check(arguments, subject), tuple(links), slots,
            waits, when, place=place,
        )  # fmt: skip

    def _inner_ids(self, inside: Scope) -> list[str]:
        return [inside.prefix + name for name in inside.steps if inside.prefix + name in inside.built]

    def _transaction(
        self, scope: Scope, name: str, after: Mapping[str, Upstream], when: tuple[Condition, ...]
    ) -> GraphStep | None:
        step, at = scope.steps[name], (*scope.at, name)
        assert step.steps is not None
        assert step.transaction is not None
        if scope.is_transaction:
            self._report(scope, "DF316", (*at, "transaction"), "a transaction inside a transaction",
                         "the outer one holds for all its steps", "remove this one")  # fmt: skip
        built: dict[str, GraphStep] = {}
        inside = self._inside(scope, name, scope.prefix + name + ".", built, {}, ())
        inside.is_transaction, inside.retry, inside.timeout_seconds = True, None, None
        self._scope(inside)
        outputs = self._links(inside, step.outputs, (*at, "outputs"))
        for inner in built.values():
            self._fits_transaction(scope, inner, at)
        self._refuse_parts(built.values(), "inside a transaction", "a transaction is committed once, at its end")
        own = {n: self._maybe(link) for n, link in outputs.items()}
        outside = outside_of(tuple(built.values()), own)
        kind = Transaction(Inside(tuple(built.values()), own, outside), step.transaction.isolation)
        timeout = step.timeout.total_seconds() if step.timeout else scope.timeout_seconds
        return self._whole(scope, name, "transaction", kind, outside, after, when, step.retry or scope.retry, timeout)

    def _loop(
        self, scope: Scope, name: str, wires: list[Wire], after: Mapping[str, Upstream], when: tuple[Condition, ...]
    ) -> GraphStep | None:
        """A step for every item of a list: one step of the graph, whose body is built as if it stood here alone."""
        step, at = scope.steps[name], (*scope.at, name)
        assert step.foreach is not None
        is_long = isinstance(scope.file.document.at((*at, "foreach")), Mapping)
        here: At = (*at, "foreach", "in") if is_long else (*at, "foreach")
        items = link_at(scope, name, step.foreach.in_, here, ("outside", 0))
        kind = ValueType("any")
        try:
            kind = item_type(items.type, items.text) if items is not None else kind
        except ValueProblem as problem:
            scope.file.report("DF302", here, False, problem.what, problem.why, problem.fix)
        built: dict[str, GraphStep] = {}
        body = replace(scope, built=built, item=kind, guards=(), after={}, types=dict(scope.types))
        part = self._part(body, name, wires, {}, ())
        if part is None or items is None:
            return None
        part = self.undos.given(body, name, part)
        built[part.id] = part
        self._refuse_parts(built.values(), "inside a loop", "each item is recorded by itself, and as a whole")
        fields = part.checked.output.fields or {}
        may_be_null = part.checked.output.nullable or part.id in self.may_skip
        outputs = {
            n: Link((part.id, n), (n,), t.optional() if may_be_null else t, f"{name}.{n}", has_default=may_be_null)
            for n, t in fields.items()
        }
        outside = [items, *outside_of(tuple(built.values()), outputs, has_item=True)]
        uses_database = any(inner.kind.uses_database for inner in built.values())
        body_steps = tuple(built.values())
        loop = Loop(Inside(body_steps, outputs, outside[1:], len(body_steps) > 1), step.foreach, uses_database)
        whole = self._whole(scope, name, "foreach", loop, outside, after, when, _NO_RETRY, None)
        return replace(whole, undo="items") if any(inner.undo is not None for inner in body_steps) else whole

    def _whole(
        self, scope: Scope, name: str, node: str, kind: Loop | Transaction, outside: list[Link],
        after: Mapping[str, Upstream], when: tuple[Condition, ...], retry: Retry | None, timeout: float | None,
    ) -> GraphStep:  # fmt: skip
        """The one step that several are to the rest of the graph."""
        slots = slots_for(outside)
        arguments: dict[str, object] = {"outside": list(slots)}
        subject = Subject(None, scope.file.catalog.models, scope.file.project)
        checked = kind.check(arguments, subject)
        place = scope.file.place((*scope.at, name), key=True)
        return GraphStep(
            scope.prefix + name, node, kind, subject, arguments, checked, tuple(outside), slots, after, when,
            retry=retry, timeout_seconds=timeout, place=place,
        )  # fmt: skip

    def _maybe(self, link: Link) -> Link:
        """What a step that may be skipped gives may be null."""
        return replace(link, type=link.type.optional(), has_default=True) if link.root in self.may_skip else link

    def _refuse_parts(self, steps: Iterable[GraphStep], where: str, why: str) -> None:
        for step in (inner for each in steps for inner in each.with_inside() if inner.checked.parts is not None):
            what = f"commit: batch stands {where}"
            self.problems.append(Problem("DF319", what, step.place, why, "leave commit out"))

    def _fits_transaction(self, scope: Scope, inner: GraphStep, at: At) -> None:
        what = f"{inner.node} acts outside of the database"
        why = "a rollback could not take it back"
        if inner.kind.writes and not inner.kind.uses_database:
            problem = Problem(
                "DF316", what, inner.place, why, "put the step after the transaction, with an undo of its own"
            )
            self.problems.append(problem)
        here = scope.file.document.at((*at, "steps"))
        if not isinstance(here, Mapping):
            return
        names = inner.id[len(scope.prefix) :].split(".")[1:]
        for key in ("retry", "timeout"):
            path: At = (*at, *(part for n in names for part in ("steps", n)), key)
            if scope.file.document.at(path) is not None:
                self._report(scope, "DF316", path, f"{key!r} stands inside a transaction",
                             "its steps are tried again and timed as one", f"write {key} at the group")  # fmt: skip

    def _pipeline(
        self, scope: Scope, name: str, wires: list[Wire], after: Mapping[str, Upstream], when: tuple[Condition, ...]
    ) -> GraphStep | None:
        step, at, file = scope.steps[name], (*scope.at, name), scope.file
        assert step.pipeline is not None
        place = file.place((*at, "pipeline"))
        try:
            document, pipeline, catalog, folder = self.files(file.project, step.pipeline)
        except DefinitionError as error:
            self.problems += [p if p.place else replace(p, place=place) for p in error.problems]
            return None
        if any(other.document.name == document.name for other in self.chain):
            names = [other.document.name for other in self.chain]
            way = " → ".join([*names[names.index(document.name) :], document.name])
            self.problems.append(
                Problem("DF317", f"these files are steps of each other: {way}", place, "a run would not end")
            )
            return None
        for key in ("on_failure", "finally", "schedule"):
            if key in document.root:
                why = "what happens around a run is said by the file that is run"
                what = f"{step.pipeline} has {key!r}, which a step cannot have"
                self.problems.append(Problem("DF317", what, place, why, "move its steps into a file of their own"))
                return None
        for model, shape in catalog.models.items():
            if self.models.get(model, shape) != shape:
                what = f"{step.pipeline} has another model {model!r}"
                why = "one run has one table of each model"
                self.problems.append(Problem("DF317", what, place, why, "share one file of models"))
                return None
        prefix = f"{scope.prefix}{name}."
        child = File(document, pipeline, catalog, folder, prefix, f"{prefix}params", file.hosts)
        given = self._parameters(scope, name, child, wires, after, when)
        if given is None:
            return None
        scope.built[given.id] = given
        inside = self._file(child, {given.id: "succeeded"}, when)
        if not inside.types:
            return None
        inside.built = scope.built
        outputs = self._links(inside, pipeline.outputs, ("outputs",))
        return self._door(scope, name, f"pipeline {step.pipeline}", inside, outputs, {given.id: "succeeded"}, when)

    def _parameters(
        self, scope: Scope, name: str, child: File, wires: list[Wire], after: Mapping[str, Upstream],
        when: tuple[Condition, ...],
    ) -> GraphStep | None:  # fmt: skip
        """The step that holds what a file is given."""
        step, before = scope.steps[name], len(self.problems)
        kind = Parameters(child.pipeline.params)
        subject = Subject(None, child.catalog.models, child.project)
        literals = copy_literals(step.with_)
        assert isinstance(literals, dict)
        filled = fill(scope, name, str(step.pipeline), kind.ports(subject, {}), literals, wires)
        if filled is None:
            return None
        checked = check_arguments(scope, name, kind, subject, filled)
        if checked is None or len(self.problems) > before:
            return None
        return GraphStep(
            child.params, "params", kind, subject, filled.arguments, checked, filled.connected.links,
            filled.connected.slots, after, when, place=scope.file.place((*scope.at, name), key=True),
        )  # fmt: skip

    # --- what comes out ----------------------------------------------------------------------------------------

    def _links(self, scope: Scope, outputs: Mapping[str, str], at: At) -> dict[str, Link]:
        """The outputs of a file or a group."""
        links: dict[str, Link] = {}
        for name, written in outputs.items():
            link = link_at(scope, None, written, (*at, name), (name,))
            if link is None:
                links[name] = Link(("run", "id"), (name,), ValueType("any"), str(written))  # so that readers are judged
                continue
            if link.type.kind == "secret":
                what = f"{link.text!r} is a secret"
                scope.file.report("DF301", (*at, name), False, what, "outputs are printed and stored")
                continue
            links[name] = link
        return links

    def _report(self, scope: Scope, code: str, at: At, what: str, why: str = "", fix: str = "") -> None:
        scope.file.report(code, at, True, what, why, fix)
