"""What a step is connected to: the references under `inputs`, `after` and `when`, read and typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runner.arguments import Path as ArgumentPath
from runner.arguments import put, split_target
from runner.conditions import Condition, constant, read_condition
from runner.errors import Place, Problem, did_you_mean
from runner.graph.scope import At, Scope
from runner.graph.shapes import Upstream
from runner.ports import Link, Reference, parse_reference
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.types import Connection, ValueProblem, ValueType

CODES = {"value": "DF309", "shape": "DF310", "name": "DF311", "connection": "DF302"}
UNKNOWN = Connection("…", ValueType("any"))
"""Stands where something is wrong that was told already."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A key of `inputs` before its type is known."""

    key: str
    reference: Reference
    has_default: bool
    default: object
    place: Place


def wires_of(scope: Scope, name: str, inputs: Mapping[str, object], at: At) -> Iterator[Wire]:
    """The connections under `inputs`; those that lead nowhere are reported."""
    for key, written in inputs.items():
        here: At = (*at, key)
        has_default, default, source = False, None, written
        if isinstance(written, Mapping):
            here, source = (*here, "from"), written.get("from")
            has_default, default = "default" in written, written.get("default")
            for extra in set(written) - {"from", "default"}:
                scope.file.report("DF312", (*at, key, extra), True, f"{extra!r} is not known here",
                                  fix="a connection in its long form is {from: …, default: …}")  # fmt: skip
        reference = reference_at(scope, name, source, here)
        if reference is not None:
            yield Wire(key, reference, has_default, default, scope.file.place(here))


def reference_at(scope: Scope, name: str | None, text: object, at: At, key: bool = False) -> Reference | None:
    """The reference that stands at a place; None, and reported, where it is none or leads to no step."""
    try:
        reference = parse_reference(text)
    except ValueProblem as problem:
        scope.file.report("DF312", at, key, problem.what, problem.why, problem.fix)
        return None
    return reference if scope.knows(reference, name, at, key) else None


def link_at(
    scope: Scope, name: str | None, text: object, at: At, target: ArgumentPath, key: bool = False
) -> Link | None:
    """The typed link to what a reference reaches; None, and reported, where it leads nowhere."""
    reference = reference_at(scope, name, text, at, key)
    if reference is None:
        return None
    try:
        kind = scope.type_of(reference)
    except ValueProblem as problem:
        scope.file.report("DF301", at, key, problem.what, problem.why, problem.fix)
        return None
    return Link(scope.source(reference), target, kind, reference.text)


def afters_of(scope: Scope, name: str) -> Iterator[tuple[str, Upstream]]:
    """The names under `after`, all of this scope."""
    at: At = (*scope.at, name, "after")
    raw = scope.file.document.at(at)
    for index, (upstream, state) in enumerate(scope.steps[name].after.items()):
        is_list = isinstance(raw, list)
        here: At = at if isinstance(raw, str) else (*at, index if is_list else upstream)
        if upstream == name:
            scope.file.report("DF307", here, not is_list, f"{name!r} waits for itself")
        elif upstream not in scope.steps:
            around = scope.find(upstream) is not None
            why = "`after` is about the steps beside this one; a group waits as a whole" if around else ""
            fix = did_you_mean(upstream, [s for s in scope.steps if s != name])
            what = f"{upstream!r} is outside of the group" if around else f"there is no step {upstream!r}"
            scope.file.report("DF303", here, not is_list, what, why, fix)
        else:
            yield upstream, state


def condition_of(scope: Scope, name: str) -> Condition | None:
    """The condition of a step; what is wrong in it is reported. One that never changes is a warning."""
    raw, at = scope.steps[name].when, (*scope.at, name, "when")
    if raw is None:
        return None
    try:
        condition = read_condition(
            raw, lambda text, path: link_at(scope, name, text, (*at, *path), ("when", text), key=True)
        )
    except ValueProblem as problem:
        here = (*at, *problem.path)
        scope.file.report(CODES[problem.kind], here, problem.key, problem.what, problem.why, problem.fix)
        return None
    if condition is not None:
        always = constant(condition.tree, condition.types)
        if always is not None:
            what = f"the condition of {name!r} is always {str(always).lower()}"
            fix = "remove `when`" if always else "remove the step, or the part that can never hold"
            place = scope.file.place(at, key=True)
            scope.file.warnings.append(Problem("DF315", what, place, "no value can change it", fix, "warning"))
    return condition


@dataclass(frozen=True, slots=True)
class Connected:
    """Connections that were put into the arguments: links and slots in one order; `written` leads back to the keys."""

    links: tuple[Link, ...]
    slots: tuple[Connection, ...]
    written: Mapping[ArgumentPath, str]


def connect(
    scope: Scope, at: At, ports: Mapping[str, Port], arguments: dict[str, object], wires: list[Wire]
) -> Connected:
    """Put a `Connection` of the right type at each connected place of `arguments`.

    at: where the mapping of `inputs` stands.
    """
    query_ports = frozenset(name for name, port in ports.items() if port.shape is not None)
    links: list[Link] = []
    slots: list[Connection] = []
    written: dict[ArgumentPath, str] = {}
    for wire in wires:
        try:
            kind, default = _typed(scope, wire)
            target = split_target(wire.key, query_ports)
            slot = Connection(wire.reference.text, kind)
            put(arguments, target, slot)
        except ValueProblem as problem:
            if problem.path:
                why = "a place takes one value: a literal under `with` or a connection under `inputs`"
                scope.file.report("DF306", (*at, wire.key), True, problem.what, why, "remove one of the two")
            else:
                scope.file.problems.append(Problem("DF301", problem.what, wire.place, problem.why, problem.fix))
            continue
        source = scope.source(wire.reference)
        links.append(Link(source, target, kind, wire.reference.text, wire.has_default, default))
        slots.append(slot)
        written[target] = wire.key
    return Connected(tuple(links), tuple(slots), written)


def _typed(scope: Scope, wire: Wire) -> tuple[ValueType, object]:
    """The type of what flows, with its default; `any` where the reference leads nowhere, so that the rest of the step
    is judged."""
    try:
        kind = scope.type_of(wire.reference)
    except ValueProblem as problem:
        scope.file.problems.append(Problem("DF301", problem.what, wire.place, problem.why, problem.fix))
        kind = UNKNOWN.type
    if not wire.has_default:
        return kind, None
    return (kind.optional(), None) if wire.default is None else (kind, parse_value(kind.optional(), wire.default))
