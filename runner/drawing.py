"""What a pipeline's graph looks like: as text, Mermaid, DOT or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from runner.graph import Graph, GraphStep
from runner.graph.loop import Loop
from runner.ports import Link


def graph_text(graph: Graph) -> str:
    """Each step in the order of the file with what it reads and gives; what is inside a transaction or a loop stands
    below it."""
    told = [graph.name]
    for step in graph.steps.values():
        told += [f"  {line}" for line in _lines(step)]
    if graph.undoes:
        told += ["  a failure takes back", *(f"    {name}" for name in graph.undoes)]
    if graph.outputs:
        told.append("  outputs")
        told += [f"    {name} ← {link.text}  ({link.type})" for name, link in graph.outputs.items()]
    return "\n".join(told)


def _lines(step: GraphStep) -> Iterator[str]:
    how = " ".join([step.node, *_how(step)])
    yield f"{step.id}  {how}"
    for link in _own(step):
        default = f" or {json.dumps(link.default, default=str)}" if link.has_default else ""
        yield f"  {_port(step, link)} ← {link.text}{default}  ({link.type})"
    for condition in step.when:
        yield from (f"  when ← {link.text}  ({link.type})" for link in condition.links)
    for upstream, state in step.after.items():
        yield f"  after {upstream}{' (finished)' if state == 'finished' else ''}"
    limits = _limits(step)
    if limits:
        yield f"  {', '.join(limits)}"
    if isinstance(step.undo, GraphStep):
        yield from (f"  {line}" for line in _lines(step.undo))
    elif step.undo == "auto":
        yield "  undo auto"
    for inner in _inside(step):
        yield from (f"  {line}" for line in _lines(inner))
    for name, link in _gives(step).items():
        yield f"  gives {name} ← {link.text}  ({link.type})"


def _how(step: GraphStep) -> list[str]:
    """How the steps inside are done."""
    kind = step.kind
    if isinstance(kind, Loop):
        return [f"max_parallel={kind.how.max_parallel}", f"on_item_error={kind.how.on_item_error}"]
    isolation = getattr(kind, "isolation", None)
    return [f"isolation={isolation}"] if isolation else []


def _limits(step: GraphStep) -> list[str]:
    limits = [] if step.timeout_seconds is None else [f"timeout {step.timeout_seconds:g} s"]
    if step.retry is not None and step.retry.max:
        limits.append(f"retry {step.retry.max} on {', '.join(step.retry.on)}")
    return limits


def _inside(step: GraphStep) -> Sequence[GraphStep]:
    return getattr(step.kind, "steps", ())


def _gives(step: GraphStep) -> Mapping[str, Link]:
    """What a transaction gives of what is inside it; a loop gives all that its body does."""
    return {} if isinstance(step.kind, Loop) else getattr(step.kind, "outputs", {})


def _own(step: GraphStep) -> Sequence[Link]:
    """What the step itself reads: of a loop its items; what else reaches it or a transaction, the steps inside read."""
    if isinstance(step.kind, Loop):
        return step.connections[:1]
    return () if _inside(step) else step.connections


def _port(step: GraphStep, link: Link) -> str:
    return "in" if isinstance(step.kind, Loop) else ".".join(map(str, link.target))


def graph_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: connections as arrows with what flows, `after` as dotted ones."""
    told = ["flowchart TD"]
    told += [f'  {name}["{name}<br/>{step.node}"]' for name, step in graph.steps.items()]
    for source, target, label, is_data in _edges(graph):
        told.append(f'  {source} -->|"{label}"| {target}' if is_data else f"  {source} -.-> {target}")
    return "\n".join(told)


def graph_dot(graph: Graph) -> str:
    """Graphviz DOT."""
    told = [f'digraph "{graph.name}" {{', "  node [shape=box];"]
    told += [f'  "{name}" [label="{name}\\n{step.node}"];' for name, step in graph.steps.items()]
    for source, target, label, is_data in _edges(graph):
        told.append(f'  "{source}" -> "{target}" [{f"label={json.dumps(label)}" if is_data else "style=dotted"}];')
    return "\n".join([*told, "}"])


def graph_json(graph: Graph) -> str:
    """Steps and typed edges as data; the steps of a transaction or a loop stand in its `steps`."""
    edges = [edge for step in graph.steps.values() for edge in _edge_records(step)]
    outputs = {name: {"from": link.text, "type": str(link.type)} for name, link in graph.outputs.items()}
    params = {name: str(param.value_type()) for name, param in graph.params.items()}
    document = {
        "name": graph.name, "params": params, "steps": [_record(step) for step in graph.steps.values()],
        "connections": edges, "outputs": outputs, "undoes": list(graph.undoes),
    }  # fmt: skip
    return json.dumps(document, ensure_ascii=False, indent=2)


def _record(step: GraphStep) -> dict[str, object]:
    record: dict[str, object] = {
        "id": step.id, "node": step.node, "phase": step.phase, "gives": str(step.checked.output),
        "after": dict(step.after), "undo": step.undo.node if isinstance(step.undo, GraphStep) else step.undo,
    }  # fmt: skip
    if isinstance(step.kind, Loop):
        record["foreach"] = step.kind.how.model_dump(by_alias=True)
    inside = _inside(step)
    return record | {"steps": [_record(inner) for inner in inside]} if inside else record


def _edge_records(step: GraphStep) -> Iterator[dict[str, str]]:
    for link in _own(step):
        yield {"from": link.text, "step": step.id, "port": _port(step, link), "type": str(link.type)}
    for inner in _inside(step):
        yield from _edge_records(inner)


def _edges(graph: Graph) -> Iterable[tuple[str, str, str, bool]]:
    for name, step in graph.steps.items():
        for link in step.connections:
            if link.root in graph.steps:
                yield link.root, name, f"{'.'.join(link.source[1:])} → {'.'.join(map(str, link.target))}", True
        for link in (link for condition in step.when for link in condition.links):
            if link.root in graph.steps:
                yield link.root, name, f"{'.'.join(link.source[1:])} → when", True
        for upstream in step.after:
            if all(link.root != upstream for link in step.reads):
                yield upstream, name, "", False
