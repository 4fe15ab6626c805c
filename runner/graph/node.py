"""One step that is a node: its ports filled from literals and connections, judged by its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from runner.arguments import Path as ArgumentPath
from runner.arguments import copy_literals
from runner.conditions import Condition
from runner.errors import Problem, did_you_mean
from runner.graph.scope import At, Scope
from runner.graph.shapes import GraphStep, Upstream
from runner.graph.wires import CODES, UNKNOWN, Connected, Wire, connect
from runner.nodes import resolve_node
from runner.nodes.base import Checked, Kind, Subject
from runner.nodes.extras import missing_extra
from schemas.nodes import NOTHING, Port
from schemas.types import ValueProblem, ValueType


@dataclass(frozen=True, slots=True)
class Filled:
    """Arguments with a `Connection` wherever a value will arrive, as far as they can be judged.

    missing: required ports that nothing fills, told already. is_judgeable: nothing that decides about the rest is
    wrong.
    """

    arguments: dict[str, object]
    ports: Mapping[str, Port]
    connected: Connected
    is_judgeable: bool


def node_step(
    scope: Scope, name: str, wires: list[Wire], after: Mapping[str, Upstream], when: tuple[Condition, ...]
) -> GraphStep | None:
    """The step, or None where something in it is wrong; its type is then in the scope as far as it is known."""
    step, file = scope.steps[name], scope.file
    at: At = (*scope.at, name)
    assert step.node is not None
    before = len(file.problems)
    try:
        kind, model = resolve_node(step.node, file.catalog.models)
    except ValueProblem as problem:
        file.report("DF308", (*at, "node"), False, problem.what, problem.why, problem.fix)
        return None
    subject = Subject(model, file.catalog.models, file.project, file.hosts)
    lacking = missing_extra(kind, step.node)
    if lacking is not None:
        file.warnings.append(replace(lacking, place=file.place((*at, "node"))))
    literals = copy_literals(step.with_)
    assert isinstance(literals, dict)
    try:
        ports = kind.ports(subject, literals)
    except ValueProblem as problem:
        _argument_problem(scope, name, problem, {})
        return None
    filled = fill(scope, name, step.node, ports, literals, wires)
    if filled is None:
        return None
    checked = check_arguments(scope, name, kind, subject, filled)
    if checked is None:
        return None
    if len(file.problems) > before:
        scope.types[name] = checked.output  # without its mistakes, so that its readers are judged, too
        return None
    timeout = step.timeout.total_seconds() if step.timeout else scope.timeout_seconds
    return GraphStep(
        scope.prefix + name, step.node, kind, subject, filled.arguments, checked, filled.connected.links,
        filled.connected.slots, after, when, retry=step.retry or scope.retry, timeout_seconds=timeout,
        place=file.place(at, key=True),
    )  # fmt: skip


def fill(
    scope: Scope, name: str, node: str, ports: Mapping[str, Port], arguments: dict[str, object], wires: list[Wire]
) -> Filled | None:
    """The ports of a step filled from `with` and `inputs`; what is wrong is reported, None where nothing more can be
    said about the step."""
    step, at, file = scope.steps[name], (*scope.at, name), scope.file
    known = _known_ports(scope, at, node, ports, arguments, step.inputs)
    connected = connect(scope, (*at, "inputs"), ports, arguments, [w for w in wires if w.key.split(".")[0] in known])
    missing = [p for p in ports.values() if p.required and p.default is NOTHING and p.name not in arguments]
    inputs = {key.split(".")[0] for key in step.inputs}
    for port in missing:
        if port.name not in inputs:  # a connection has a problem of its own
            file.report("DF305", at, True, f"{node} needs {port.name!r} ({port.type})",
                        f"{name!r} neither sets it under `with` nor connects it under `inputs`",
                        f"inputs: {{{port.name}: …}}")  # fmt: skip
    if any(_is_early(port) for port in missing) or any(p.literal and p.name in inputs for p in ports.values()):
        return None
    for port in missing:
        arguments[port.name] = UNKNOWN
    return Filled(arguments, ports, connected, not missing)


def _known_ports(
    scope: Scope, at: At, node: str, ports: Mapping[str, Port], arguments: dict[str, object],
    inputs: Mapping[str, object],
) -> set[str]:  # fmt: skip
    """The ports that exist; the others are reported and taken out of `arguments`."""

    def no_port(here: At, port: str) -> None:
        scope.file.report("DF304", here, True, f"{node} has no port {port!r}", fix=did_you_mean(port, ports))

    for key in [key for key in arguments if key not in ports]:
        no_port((*at, "with", key), key)
        del arguments[key]
    known = set(ports)
    for key in inputs:
        port = key.split(".")[0]
        if port not in ports:
            no_port((*at, "inputs", key), port)
        elif ports[port].literal:
            scope.file.report("DF313", (*at, "inputs", key), True, f"{port!r} of {node} must be known early",
                              "it decides what the other ports or the outputs are",
                              "write it under `with`")  # fmt: skip
            known.discard(port)
    return known


def check_arguments(scope: Scope, name: str, kind: Kind, subject: Subject, filled: Filled) -> Checked | None:
    """What the node makes of its arguments. A kind stops at a port that is wrong: the others are judged without
    it, so that all of them are told. None where nothing is left to judge by."""
    judged, ports = dict(filled.arguments), filled.ports
    known: set[str] = set()
    while True:
        try:
            return kind.check(judged, subject)
        except (ValueProblem, ExceptionGroup) as raised:
            faulty = [(str(each.path[0]) if each.path else "", each) for each in _flat(raised)]
        for port, each in faulty:
            if not known or port not in known | {""}:
                _argument_problem(scope, name, each, filled.connected.written)
        wrong = ({port for port, _ in faulty} & judged.keys()) - known
        if not wrong or any(ports[port].required and _is_early(ports[port]) for port in wrong):
            return None
        known |= wrong
        for port in wrong:
            if _is_early(ports[port]):
                del judged[port]
            else:
                judged[port] = UNKNOWN


# --- problems -----------------------------------------------------------------------------------------------------


def _argument_problem(scope: Scope, name: str, problem: ValueProblem, written: Mapping[ArgumentPath, str]) -> None:
    """Report a problem of an argument at the place it came from: a key of `inputs` or a part of `with`."""
    path, at = problem.path, (*scope.at, name)
    for length in range(len(path), 0, -1):
        if path[:length] in written:
            key = written[path[:length]]
            place = scope.file.place((*at, "inputs", key), key=False)
            break
    else:
        place = scope.file.place((*at, "with", *path), key=problem.key)
    what, why, fix = problem.what, problem.why, problem.fix
    if problem.kind == "connection" and path:
        node = scope.steps[name].node
        what = f"{what.partition(', wanted ')[0]}, port {'.'.join(map(str, path))!r} of {node} wants " + (
            what.partition(", wanted ")[2] or "another type"
        )
        why = why or _why_field(scope, name, path)
        fix = fix or _meant_field(scope, name, path, written)
    elif path and not problem.key:
        what = f"{'.'.join(map(str, path))}: {what}"
    scope.file.problems.append(Problem(CODES[problem.kind], what, place, why, fix))


def _meant_field(scope: Scope, name: str, path: ArgumentPath, written: Mapping[ArgumentPath, str]) -> str:
    """For a field that references `Customer.id` and a connection to another field of a customer: that customer's
    `id`."""
    models = scope.file.catalog.models
    model = resolve_node(str(scope.steps[name].node), models)[1]
    source = scope.steps[name].inputs.get(written.get(path, ""))
    field = model.fields.get(str(path[-1])) if model else None
    if field is None or field.references is None or not isinstance(source, str):
        return ""
    root, *rest = source.split(".")
    found = scope.find(root)
    upstream = found.steps[root] if found is not None else None
    if found is None or upstream is None or upstream.node is None or len(rest) != 1:
        return ""
    target = resolve_node(upstream.node, models)[1]
    meant = field.references[1]
    is_there = meant in (found.types.get(root, ValueType("any")).fields or {})
    return f"did you mean {root}.{meant}?" if target and target.name == field.references[0] and is_there else ""


def _why_field(scope: Scope, name: str, path: ArgumentPath) -> str:
    """Where the wanted type comes from, when the port is a field of a model."""
    catalog = scope.file.catalog
    model = resolve_node(str(scope.steps[name].node), catalog.models)[1]
    field = next((str(part) for part in path if model and part in model.fields), None)
    if model is None or field is None:
        return ""
    shape = model.fields[field]
    place = catalog.place(model.name, field)
    where = f" ({place.file}:{place.line})" if place else ""
    if shape.references:
        return f"{model.name}.{field} references {'.'.join(shape.references)}{where}"
    return f"{model.name}.{field} is {shape.type}{where}"


def _is_early(port: Port) -> bool:
    """Whether no connection can stand for the whole of the port."""
    return port.literal or port.shape is not None


def _flat(raised: ValueProblem | ExceptionGroup[Exception]) -> Iterator[ValueProblem]:
    if isinstance(raised, ValueProblem):
        yield from raised.all()
        return
    for inner in raised.exceptions:
        if isinstance(inner, (ValueProblem, ExceptionGroup)):
            yield from _flat(inner)
        else:
            raise inner
