"""A pipeline and a catalog become a checked graph: every step with its kind, every edge with its type.

Opens no file and no database. All problems of a pipeline are found here, before anything runs; a step that is wrong
gives what it would give without its mistakes, else `any`, so that each mistake is told, and once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from runner.arguments import Path as ArgumentPath
from runner.arguments import copy_literals, put, split_target
from runner.conditions import Condition, constant, read_condition, references_in
from runner.errors import DefinitionError, Place, Problem, did_you_mean
from runner.graph.params import parameter_problems
from runner.graph.shapes import RUN, Graph, GraphStep, Upstream
from runner.nodes import resolve_node
from runner.nodes.base import Checked, Kind, Subject
from runner.nodes.extras import missing_extra
from runner.ports import Link, Reference, parse_reference, reach_type
from schemas.nodes import NOTHING, Port
from schemas.types import Connection, ValueProblem, ValueType, parse_value

if TYPE_CHECKING:
    from runner.catalog import Catalog
    from runner.source import Document
    from schemas.pipeline import Pipeline, Step

_CODES = {"value": "DF309", "shape": "DF310", "name": "DF311", "connection": "DF302"}


@dataclass(frozen=True, slots=True)
class _Wire:
    """A key of `inputs` before its type is known."""

    key: str
    target: ArgumentPath
    reference: Reference
    has_default: bool
    default: object
    place: Place


_UNKNOWN = Connection("…", ValueType("any"))
"""Stands where something is wrong that was told already."""


def build_graph(document: Document, pipeline: Pipeline, catalog: Catalog, project: Path) -> Graph:
    """The checked graph of a pipeline. Raises `DefinitionError` with every problem of the file."""
    return _Builder(document, pipeline, catalog, project).build()


class _Builder:
    def __init__(self, document: Document, pipeline: Pipeline, catalog: Catalog, project: Path) -> None:
        self.document = document
        self.pipeline = pipeline
        self.catalog = catalog
        self.project = project
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.roots: dict[str, ValueType] = {
            "params": ValueType("record", fields={n: p.value_type() for n, p in pipeline.params.items()}),
            "secrets": ValueType("record", fields={n: ValueType("secret") for n in pipeline.secrets}),
            "run": RUN,
        }

    def build(self) -> Graph:
        wires = {name: list(self._wires(name, step)) for name, step in self.pipeline.steps.items()}
        afters = {name: dict(self._afters(name, step)) for name, step in self.pipeline.steps.items()}
        self.problems += parameter_problems(self.document, self.pipeline.params)
        steps: dict[str, GraphStep] = {}
        outputs: dict[str, Link] = {}
        conditions = {name: set(self._condition_roots(name, step)) for name, step in self.pipeline.steps.items()}
        order = self._order(wires, afters, conditions)
        for name in order:
            step = self._step(name, wires[name], afters[name])
            if step is None:
                self.roots.setdefault(name, ValueType("any"))
                continue
            steps[name] = step
            self.roots[name] = step.checked.output
        if order:
            outputs = self._outputs()
            self._check_rejects(steps, outputs)
        if self.problems:
            raise DefinitionError(self.problems)
        return Graph(
            name=self.pipeline.name,
            steps={name: steps[name] for name in self.pipeline.steps},
            params=self.pipeline.params,
            secrets=tuple(self.pipeline.secrets),
            outputs=outputs,
            fail_fast=self.pipeline.fail_fast,
            timeout_seconds=self.pipeline.timeout.total_seconds() if self.pipeline.timeout else None,
            warnings=tuple(self.warnings),
        )

    # --- what the author wrote -------------------------------------------------------------------------------

    def _wires(self, name: str, step: Step) -> Iterator[_Wire]:
        for key, written in step.inputs.items():
            at: tuple[str | int, ...] = ("steps", name, "inputs", key)
            has_default, default, source = False, None, written
            if isinstance(written, Mapping):
                at, source = (*at, "from"), written.get("from")
                has_default, default = "default" in written, written.get("default")
                for extra in set(written) - {"from", "default"}:
                    self._report("DF312", ("steps", name, "inputs", key, extra), True, f"{extra!r} is not known here",
                                 fix="a connection in its long form is {from: …, default: …}")  # fmt: skip
            try:
                reference = parse_reference(source)
            except ValueProblem as problem:
                self._report("DF312", at, False, problem.what, problem.why, problem.fix)
                continue
            if self._knows_root(reference, name, at):
                yield _Wire(key, (), reference, has_default, default, self.document.place(at))

    def _knows_root(self, reference: Reference, step: str | None, at: tuple[str | int, ...], key: bool = False) -> bool:
        root = reference.root
        if root == step:
            self._report("DF307", at, key, f"{step!r} connects to itself",
                         "a step runs once, after everything it reads from")  # fmt: skip
            return False
        if root in self.pipeline.steps:
            return True
        if root in ("params", "secrets", "run"):
            if reference.members:
                return True
            self._report("DF312", at, key, f"{root!r} alone is not a value", fix=f"name one: {root}.…")
            return False
        if root in ("item", "self"):
            inside = "foreach" if root == "item" else "undo"
            self._report("DF303", at, key, f"{root!r} means something inside {inside} only")
            return False
        rest = "".join(f".{m}" for m in reference.members)
        known = [*self.pipeline.steps, "params", "secrets", "run"]
        hint = did_you_mean(root, known)
        if root in self.pipeline.params:
            hint = f"did you mean params.{root}?"
        elif hint.endswith("?"):
            hint = hint[:-1] + rest + "?"
        self._report("DF303", at, key, f"there is no step {root!r}", fix=hint)
        return False

    def _afters(self, name: str, step: Step) -> Iterator[tuple[str, Upstream]]:
        declared: Mapping[str, Upstream] = step.after
        raw = self.document.at(("steps", name, "after"))
        for index, (upstream, state) in enumerate(declared.items()):
            is_list = isinstance(raw, list)
            at: tuple[str | int, ...] = ("steps", name, "after", index if is_list else upstream)
            if isinstance(raw, str):
                at = ("steps", name, "after")
            if upstream == name:
                self._report("DF307", at, not is_list, f"{name!r} waits for itself")
            elif upstream not in self.pipeline.steps:
                self._report("DF303", at, not is_list, f"there is no step {upstream!r}",
                             fix=did_you_mean(upstream, [s for s in self.pipeline.steps if s != name]))  # fmt: skip
            else:
                yield upstream, state

    def _condition_roots(self, name: str, step: Step) -> Iterator[str]:
        """The steps that a condition is about, as far as they can be told before it is read."""
        for text, _ in references_in(step.when):
            root = text.partition(".")[0]
            if root in self.pipeline.steps and root != name:
                yield root

    def _condition(self, name: str, step: Step) -> Condition | None:
        """The condition of a step; what is wrong in it is reported. One that never changes is a warning."""
        at: tuple[str | int, ...] = ("steps", name, "when")

        def link_of(text: str, path: ArgumentPath) -> Link | None:
            here = (*at, *path)
            try:
                reference = parse_reference(text)
            except ValueProblem as problem:
                self._report("DF312", here, True, problem.what, problem.why, problem.fix)
                return None
            if not self._knows_root(reference, name, here, key=True):
                return None
            try:
                kind = self._type_of(reference)
            except ValueProblem as problem:
                self._report("DF301", here, True, problem.what, problem.why, problem.fix)
                return None
            return Link((reference.root, *reference.members), ("when", text), kind, text)

        if step.when is None:
            return None
        try:
            condition = read_condition(step.when, link_of)
        except ValueProblem as problem:
            self._report(
                _CODES[problem.kind], (*at, *problem.path), problem.key, problem.what, problem.why, problem.fix
            )
            return None
        if condition is not None:
            always = constant(condition.tree, condition.types)
            if always is not None:
                what = f"the condition of {name!r} is always {str(always).lower()}"
                fix = "remove `when`" if always else "remove the step, or the part that can never hold"
                place = self.document.place(at, key=True)
                self.warnings.append(Problem("DF315", what, place, "no value can change it", fix, "warning"))
        return condition

    def _order(
        self, wires: Mapping[str, list[_Wire]], afters: Mapping[str, Mapping[str, Upstream]],
        conditions: Mapping[str, set[str]],
    ) -> list[str]:  # fmt: skip
        """The steps so that each comes after all it reads from; none when some wait for each other."""
        steps = self.pipeline.steps
        waits = {
            n: {w.reference.root for w in wires[n]} & steps.keys() | afters[n].keys() | conditions[n] for n in steps
        }
        try:
            return list(TopologicalSorter(waits).static_order())
        except CycleError as error:
            ring: list[str] = error.args[1]
        cycle = list(pairwise(ring))
        position = {name: index for index, name in enumerate(steps)}
        # the edge that leads back to the earliest step of the ring is the one an author would look at
        source, target = min(cycle, key=lambda edge: position[edge[1]])
        start = ring.index(target)
        way = " → ".join([*ring[start:-1], *ring[:start], target])
        wire = next((w for w in wires[target] if w.reference.root == source), None)
        key = "after" if source in afters[target] else "when"
        place = wire.place if wire else self.document.place(("steps", target, key), key=True)
        why = "a step runs once, after everything it reads from or waits for"
        what = f"these steps wait for each other: {way}"
        self.problems.append(Problem("DF307", what, place, why, "remove one of these connections"))
        return []

    # --- one step --------------------------------------------------------------------------------------------

    def _step(self, name: str, wires: list[_Wire], after: Mapping[str, Upstream]) -> GraphStep | None:
        step = self.pipeline.steps[name]
        at: tuple[str | int, ...] = ("steps", name)
        if step.node is None:
            return None  # the declaration said so already
        before = len(self.problems)
        when = self._condition(name, step)
        try:
            kind, model = resolve_node(step.node, self.catalog.models)
        except ValueProblem as problem:
            self._report("DF308", (*at, "node"), False, problem.what, problem.why, problem.fix)
            return None
        subject = Subject(model, self.catalog.models, self.project)
        lacking = missing_extra(kind, step.node)
        if lacking is not None:
            self.warnings.append(replace(lacking, place=self.document.place((*at, "node"))))
        arguments = copy_literals(step.with_)
        assert isinstance(arguments, dict)
        try:
            ports = kind.ports(subject, arguments)
        except ValueProblem as problem:
            self._argument_problem(at, problem, {})
            return None
        known = self._known_ports(at, step, ports, arguments)
        links, slots, written = self._connect(at, ports, arguments, [w for w in wires if w.key.split(".")[0] in known])
        missing = [p for p in ports.values() if p.required and p.default is NOTHING and p.name not in arguments]
        unresolved = {key.split(".")[0] for key in step.inputs}  # a connection with a problem of its own
        for port in missing:
            if port.name not in unresolved:
                self._report("DF305", at, True, f"{step.node} needs {port.name!r} ({port.type})",
                             f"{name!r} neither sets it under `with` nor connects it under `inputs`",
                             f"inputs: {{{port.name}: …}}")  # fmt: skip
        connected = {key.split(".")[0] for key in step.inputs}
        early = [port for port in ports.values() if port in missing and _is_early(port)]
        if early or any(port.literal and port.name in connected for port in ports.values()):
            return None  # without these nothing more can be said about the step
        for port in missing:
            arguments[port.name] = _UNKNOWN
        checked = self._check(at, kind, subject, arguments, written, ports)
        if checked is None:
            return None
        if len(self.problems) > before:
            self.roots[name] = checked.output  # without its mistakes, so that its readers are judged, too
            return None
        retry = step.retry or self.pipeline.defaults.retry
        timeout = step.timeout or self.pipeline.defaults.timeout
        return GraphStep(
            name, step.node, kind, subject, arguments, checked, tuple(links), tuple(slots), dict(after), when, retry,
            timeout.total_seconds() if timeout else None, self.document.place(at, key=True),
        )  # fmt: skip

    def _check(
        self, at: tuple[str | int, ...], kind: Kind, subject: Subject, arguments: dict[str, object],
        written: Mapping[ArgumentPath, str], ports: Mapping[str, Port],
    ) -> Checked | None:  # fmt: skip
        """What the node makes of its arguments. A kind stops at a port that is wrong: the others are judged without
        it, so that all of them are told. None where nothing is left to judge by."""
        judged = dict(arguments)
        known: set[str] = set()
        while True:
            try:
                return kind.check(judged, subject)
            except (ValueProblem, ExceptionGroup) as raised:
                faulty = [(str(each.path[0]) if each.path else "", each) for each in _flat(raised)]
            for port, each in faulty:
                if not known or port not in known | {""}:
                    self._argument_problem(at, each, written)
            wrong = ({port for port, _ in faulty} & judged.keys()) - known
            if not wrong or any(ports[port].required and _is_early(ports[port]) for port in wrong):
                return None
            known |= wrong
            for port in wrong:
                if _is_early(ports[port]):
                    del judged[port]
                else:
                    judged[port] = _UNKNOWN

    def _known_ports(
        self, at: tuple[str | int, ...], step: Step, ports: Mapping[str, Port], arguments: dict[str, object]
    ) -> set[str]:
        """The ports that exist; the others are reported and taken out of `arguments`."""
        for key in [key for key in arguments if key not in ports]:
            self._no_port(step, (*at, "with", key), key, ports)
            del arguments[key]
        known = set(ports)
        for key in step.inputs:
            port = key.split(".")[0]
            if port not in ports:
                self._no_port(step, (*at, "inputs", key), port, ports)
            elif ports[port].literal:
                self._report("DF313", (*at, "inputs", key), True, f"{port!r} of {step.node} must be known early",
                             "it decides what the other ports or the outputs are", "write it under `with`")  # fmt: skip
                known.discard(port)
        return known

    def _no_port(self, step: Step, at: tuple[str | int, ...], port: str, ports: Mapping[str, Port]) -> None:
        why = model.why_not_written(port) if (model := resolve_node(step.node, self.catalog.models)[1]) else ""
        self._report("DF304", at, True, f"{step.node} has no port {port!r}", why, did_you_mean(port, ports))

    def _connect(
        self, at: tuple[str | int, ...], ports: Mapping[str, Port], arguments: dict[str, object], wires: list[_Wire]
    ) -> tuple[list[Link], list[Connection], dict[ArgumentPath, str]]:
        """Put a `Connection` of the right type at each connected place; `written` leads back to the keys."""
        query_ports = frozenset(name for name, port in ports.items() if port.shape is not None)
        links: list[Link] = []
        slots: list[Connection] = []
        written: dict[ArgumentPath, str] = {}
        for wire in wires:
            key_at = (*at, "inputs", wire.key)
            try:
                kind = self._type_or_any(wire)
                if wire.has_default:
                    kind, default = self._with_default(kind, wire)
                else:
                    default = None
                target = split_target(wire.key, query_ports)
                slot = Connection(wire.reference.text, kind)
                put(arguments, target, slot)
            except ValueProblem as problem:
                if problem.path:
                    self._report("DF306", key_at, True, problem.what, "a place takes one value: a literal under `with` "
                                 "or a connection under `inputs`", "remove one of the two")  # fmt: skip
                else:
                    self.problems.append(Problem("DF301", problem.what, wire.place, problem.why, problem.fix))
                continue
            source = (wire.reference.root, *wire.reference.members)
            links.append(Link(source, target, kind, wire.reference.text, wire.has_default, default))
            slots.append(slot)
            written[target] = wire.key
        return links, slots, written

    def _with_default(self, kind: ValueType, wire: _Wire) -> tuple[ValueType, object]:
        if wire.default is None:
            return kind.optional(), None
        return kind, parse_value(kind.optional(), wire.default)

    def _type_or_any(self, wire: _Wire) -> ValueType:
        """The type of what flows; `any` where the reference leads nowhere, so that the rest of the step is judged."""
        try:
            return self._type_of(wire.reference)
        except ValueProblem as problem:
            self.problems.append(Problem("DF301", problem.what, wire.place, problem.why, problem.fix))
            return _UNKNOWN.type

    def _type_of(self, reference: Reference) -> ValueType:
        """Raises `ValueProblem` without a path when the reference leads nowhere."""
        root = self.roots[reference.root]
        if reference.root in ("params", "secrets", "run"):
            name = reference.members[0]
            assert root.fields is not None
            if name not in root.fields:
                word = {"params": "parameter", "secrets": "secret", "run": "value"}[reference.root]
                fix = (
                    did_you_mean(name, root.fields, prefix=f"{reference.root}.")
                    or f"declare it under {reference.root}:"
                )
                raise ValueProblem(f"there is no {word} {name!r}", fix=fix)
            return reach_type(root.fields[name], reference.members[1:], f"{reference.root}.{name}")
        if root.kind == "secret":
            return root
        return reach_type(root, reference.members, reference.root)

    def _outputs(self) -> dict[str, Link]:
        outputs: dict[str, Link] = {}
        for name, written in self.pipeline.outputs.items():
            at = ("outputs", name)
            try:
                reference = parse_reference(written)
            except ValueProblem as problem:
                self._report("DF312", at, False, problem.what, problem.why, problem.fix)
                continue
            if not self._knows_root(reference, None, at):
                continue
            try:
                kind = self._type_of(reference)
                if kind.kind == "secret":
                    raise ValueProblem(f"{reference.text!r} is a secret", why="outputs are printed and stored")
            except ValueProblem as problem:
                self._report("DF301", at, False, problem.what, problem.why, problem.fix)
                continue
            outputs[name] = Link((reference.root, *reference.members), (name,), kind, reference.text)
        return outputs

    def _check_rejects(self, steps: Mapping[str, GraphStep], outputs: Mapping[str, Link]) -> None:
        """Rows that are set aside go somewhere, or their number is bounded: none vanishes without a word."""
        read = {link.source[:2] for step in steps.values() for link in step.reads}
        read |= {link.source[:2] for link in outputs.values()}
        for name, step in steps.items():
            gives = step.checked.output.fields or {}
            if "rejects" in gives and (name, "rejects") not in read and "max_rejects" not in step.arguments:
                self._report("DF314", ("steps", name, "with", "rejects"), False, f"the rejects of {name!r} go nowhere",
                             "rows that are set aside must be seen by someone",
                             f"connect {name}.rejects to a csv.write, or set max_rejects")  # fmt: skip

    # --- problems --------------------------------------------------------------------------------------------

    def _report(self, code: str, at: tuple[str | int, ...], key: bool, what: str, why: str = "", fix: str = "") -> None:
        self.problems.append(Problem(code, what, self.document.place(at, key=key), why, fix))

    def _argument_problem(
        self, at: tuple[str | int, ...], problem: ValueProblem, written: Mapping[ArgumentPath, str]
    ) -> None:
        """Report a problem of an argument at the place it came from: a key of `inputs` or a part of `with`."""
        path = problem.path
        for length in range(len(path), 0, -1):
            if path[:length] in written:
                key = written[path[:length]]
                place = self.document.place((*at, "inputs", key), key=False)
                break
        else:
            place = self.document.place((*at, "with", *path), key=problem.key)
        what, why, fix = problem.what, problem.why, problem.fix
        if problem.kind == "connection" and path:
            node = self.pipeline.steps[str(at[1])].node
            what = f"{what.partition(', wanted ')[0]}, port {'.'.join(map(str, path))!r} of {node} wants " + (
                what.partition(", wanted ")[2] or "another type"
            )
            why = why or self._why_field(str(at[1]), path)
            fix = fix or self._meant_field(str(at[1]), path, written)
        elif path and not problem.key:
            what = f"{'.'.join(map(str, path))}: {what}"
        self.problems.append(Problem(_CODES[problem.kind], what, place, why, fix))

    def _meant_field(self, step: str, path: ArgumentPath, written: Mapping[ArgumentPath, str]) -> str:
        """For a field that references `Customer.id` and a connection to another field of a customer: that customer's
        `id`."""
        model = resolve_node(str(self.pipeline.steps[step].node), self.catalog.models)[1]
        source = self.pipeline.steps[step].inputs.get(written.get(path, ""))
        field = model.fields.get(str(path[-1])) if model else None
        if field is None or field.references is None or not isinstance(source, str):
            return ""
        root, *rest = source.split(".")
        upstream = self.pipeline.steps.get(root)
        if upstream is None or upstream.node is None or len(rest) != 1:
            return ""
        target = resolve_node(upstream.node, self.catalog.models)[1]
        name = field.references[1]
        is_there = name in (self.roots[root].fields or {}) if root in self.roots else False
        return f"did you mean {root}.{name}?" if target and target.name == field.references[0] and is_there else ""

    def _why_field(self, step: str, path: ArgumentPath) -> str:
        """Where the wanted type comes from, when the port is a field of a model."""
        model = resolve_node(str(self.pipeline.steps[step].node), self.catalog.models)[1]
        name = next((str(part) for part in path if model and part in model.fields), None)
        if model is None or name is None:
            return ""
        shape = model.fields[name]
        place = self.catalog.place(model.name, name)
        where = f" ({place.file}:{place.line})" if place else ""
        if shape.references:
            return f"{model.name}.{name} references {'.'.join(shape.references)}{where}"
        return f"{model.name}.{name} is {shape.type}{where}"


def _is_early(port: Port) -> bool:
    """Whether no connection can stand for the whole of the port."""
    return port.literal or port.shape is not None


def _flat(raised: ValueProblem | ExceptionGroup[Exception]) -> Iterator[ValueProblem]:
    if isinstance(raised, ValueProblem):
        yield raised
        return
    for inner in raised.exceptions:
        if isinstance(inner, (ValueProblem, ExceptionGroup)):
            yield from _flat(inner)
        else:
            raise inner
