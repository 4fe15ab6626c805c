"""What nodes look like: the catalogue with ports, types and examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from runner.catalog import Catalog
from runner.declarations import load_pipeline
from runner.errors import DefinitionError
from runner.examples import EXAMPLE_HOST, example, example_of_ports
from runner.graph import build_graph
from runner.nodes import MODEL_KINDS, free_kinds, resolve_node
from runner.nodes.base import Kind, Subject
from runner.nodes.plugins import Plugin
from runner.source import parse_document
from schemas.nodes import NOTHING, Port
from schemas.settings import HttpHost
from schemas.shapes import ModelShape
from schemas.types import Connection, ValueProblem, ValueType

Models = Mapping[str, ModelShape]


def catalogue_text(models: Models) -> str:
    """Every node: what belongs to each model under its short and its long name, then the built-in ones."""
    told = []
    for model in models:
        told.append(model)
        told += [
            f"  {f'{model}.{k}':<{_WIDTH}} {long_name(model, k):<{_WIDTH}} {MODEL_KINDS[k].summary}"
            for k in MODEL_KINDS
        ]
    told.append("built-in")
    told += [f"  {name:<{_WIDTH}} {kind.summary}" for name, kind in free_kinds().items()]
    return "\n".join(told)


_WIDTH = 26
_NO_EXAMPLE = "none: a row is told apart by a unique field; mark one `unique: true`"


def catalogue_json(models: Models) -> str:
    """The same as data: name, long name and summary of each node."""
    nodes: list[dict[str, str | None]] = [
        {"node": f"{m}.{k}", "long_name": long_name(m, k), "summary": kind.summary}
        for m in models
        for k, kind in MODEL_KINDS.items()
    ]
    nodes += [{"node": name, "long_name": None, "summary": kind.summary} for name, kind in free_kinds().items()]
    return json.dumps({"nodes": nodes}, ensure_ascii=False, indent=2)


def long_name(model: str, kind: str) -> str:
    """`Order`, `bulk_upsert` → `OrderBulkUpsertNode`."""
    return f"{model}{''.join(part.capitalize() for part in kind.split('_'))}Node"


def node_text(name: str, models: Models) -> str:
    """One node: its summary, ports with types and defaults, what it gives, and an example step.

    Raises `ValueProblem` for an unknown name.
    """
    kind, model = resolve_node(name, models)
    ports = ports_of(kind, model, models)
    shown = f"{model.name}.{kind.name}" if model else kind.name
    told = [f"{shown}   {long_name(model.name, kind.name)}" if model else shown, f"  {kind.summary}", "", "ports"]
    rows = [(p.name, type_of_port(p), _default(p), p.help) for p in ports.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        told.append(
            "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        )
    told += ["", "gives"]
    output = output_of(kind, model, models)
    if output is None:
        told.append("  depends on what it is given")
    else:
        told += [f"  {member}: {member_type}" for member, member_type in (output.fields or {}).items()]
    told += ["", "example", *(f"  {line}" for line in _example(kind, model, ports) or [_NO_EXAMPLE])]
    return "\n".join(told)


def node_json(name: str, models: Models) -> str:
    """The same as data."""
    kind, model = resolve_node(name, models)
    output = output_of(kind, model, models)
    ports = [
        {"name": p.name, "type": type_of_port(p), "required": p.required, "literal": p.literal, "help": p.help,
         "default": None if p.default is NOTHING else p.default}
        for p in ports_of(kind, model, models).values()
    ]  # fmt: skip
    gives = None if output is None else {n: str(t) for n, t in (output.fields or {}).items()}
    shown = f"{model.name}.{kind.name}" if model else kind.name
    document = {
        "node": shown,
        "long_name": long_name(model.name, kind.name) if model else None,
        "summary": kind.summary,
    }
    return json.dumps(document | {"ports": ports, "gives": gives}, ensure_ascii=False, indent=2)


def _example(kind: Kind, model: ModelShape | None, ports: Mapping[str, Port]) -> list[str]:
    return example_of_ports(kind.name, ports) if isinstance(kind, Plugin) else example(kind.name, model)


def ports_of(kind: Kind, model: ModelShape | None, models: Models) -> dict[str, Port]:
    """The ports that a kind has before anything is known of its arguments."""
    return kind.ports(Subject(model, models, Path()), {})


def output_of(kind: Kind, model: ModelShape | None, models: Models) -> ValueType | None:
    """What the node of the example gives; None where that depends on more than the models."""
    if isinstance(kind, Plugin):
        needed = [port for port in ports_of(kind, model, models).values() if port.required]
        try:
            given: dict[str, object] = {port.name: Connection("…", port.type) for port in needed}
            return kind.check(given, Subject(model, models, Path())).output
        except (ValueProblem, ExceptionGroup):
            return None
    lines = example(kind.name, model)
    if not lines:
        return None
    text = "\n".join(["name: example", "steps:", *(f"  {line}" for line in lines)])
    document = parse_document(text.encode(), "example.yaml")
    try:
        graph = build_graph(
            document, load_pipeline(document), Catalog(models), Path(), hosts=(HttpHost(host=EXAMPLE_HOST),)
        )
    except DefinitionError:
        return None  # of a function that the reader has yet to write
    return list(graph.steps.values())[-1].checked.output


def type_of_port(port: Port) -> str:
    """The type as the catalogue shows it: the small language of ports that have one."""
    shapes = {
        "filter": "filter", "update": "update", "order_by": "list of fields", "aggregate": "aggregates",
        "group_by": "list of fields", "having": "filter", "after": "record", "field_list": "list",
        "column_types": "mapping",
    }  # fmt: skip
    return shapes.get(port.shape, port.shape) if port.shape else str(port.type)


def _default(port: Port) -> str:
    if port.required:
        return "required"
    if port.default is NOTHING:
        return ""
    return f"= {json.dumps(port.default, default=str, ensure_ascii=False)}"
