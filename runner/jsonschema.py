"""JSON Schemas for editors, made from the declarations themselves, with the project's own nodes in them."""

from __future__ import annotations

import ast
import inspect
import json
from typing import Any

from runner.describe import Models, ports_of, type_of_port
from runner.nodes import MODEL_KINDS, free_kinds
from schemas.base import Declaration
from schemas.models import Models as ModelsFile
from schemas.pipeline import Pipeline
from schemas.types import ValueType

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"^[A-Za-z_]\w*(\.([A-Za-z_]\w*|\d+|\*))*$"}


def models_schema() -> str:
    """The schema of a `models.yaml`."""
    schema: dict[str, Any] = _shortened(_with_sentences(ModelsFile))
    return _text(schema, "dfrun models")


def pipeline_schema(models: Models) -> str:
    """The schema of a pipeline; each node brings its ports."""
    schema: dict[str, Any] = _shortened(_with_sentences(Pipeline))
    step = schema["$defs"]["Step"]
    nodes: dict[str, dict[str, object]] = {}
    for name, kind in free_kinds().items():
        nodes[name] = {
            p.name: _port(p.type, p.help, p.shape is not None) for p in ports_of(kind, None, models).values()
        }
    for model in models.values():
        for name, kind in MODEL_KINDS.items():
            ports = ports_of(kind, model, models)
            nodes[f"{model.name}.{name}"] = {
                p.name: _port(p.type, p.help or type_of_port(p), p.shape is not None) for p in ports.values()
            }
    step["properties"]["node"] = {
        "type": "string",
        "examples": list(nodes),
        "description": "Model.kind or a built-in node",
    }
    step["properties"]["inputs"]["additionalProperties"] = {
        "anyOf": [
            _REFERENCE,
            {"type": "object", "properties": {"from": _REFERENCE, "default": {}}, "required": ["from"]},
        ]
    }
    step["properties"]["foreach"] = {"anyOf": [_REFERENCE, {"$ref": "#/$defs/ForEach"}]}
    step["properties"]["transaction"] = {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/TransactionDeclaration"}]}
    words = {"type": "array", "items": {"type": "string"}}
    schema["$defs"]["OnFailure"]["properties"]["undo"] = {"anyOf": [{"type": "string"}, words]}
    step["properties"]["after"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}},
                  {"type": "object", "additionalProperties": {"enum": ["succeeded", "finished"]}}]
    }  # fmt: skip
    step["allOf"] = [
        {
            "if": {"properties": {"node": {"const": name}}, "required": ["node"]},
            "then": {"properties": {"with": {"properties": ports, "additionalProperties": name in _OPEN}}},
        }
        for name, ports in nodes.items()
    ]
    return _text(schema, "dfrun pipeline")


_OPEN = ("python.call", "text.format", "sql.query", "sql.execute")
"""Nodes whose literals make ports of their own."""


def _port(kind: ValueType, text: str, is_shaped: bool) -> dict[str, object]:
    """What a literal of the port may look like in YAML, as an editor's own reader sees it."""
    described: dict[str, object] = {"description": f"{kind}{'. ' + text if text else ''}"}
    if is_shaped:
        return {"description": text}
    match kind.kind:
        case "enum":
            return described | {"enum": [*kind.values, *([None] if kind.nullable else [])]}
        case "boolean":
            return described | {"type": ["boolean", "null"] if kind.nullable else "boolean"}
        case "integer":
            return described | {"type": ["integer", "null"] if kind.nullable else "integer"}
        case _:
            return described


def key_sentences(declaration: type[Declaration]) -> dict[str, str]:
    """What each key of a declaration means: the text below its line in the source, by the key as it is written in YAML.

    Read from the source when it is asked for: pydantic's own way would read it at every start.
    """
    found: dict[str, str] = {}
    for owner in reversed([c for c in declaration.__mro__ if issubclass(c, Declaration) and c is not Declaration]):
        body = ast.parse(inspect.getsource(owner)).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                key = owner.model_fields[line.target.id].alias or line.target.id
                found[key] = inspect.cleandoc(str(ast.literal_eval(below.value))).replace("\n", " ")
    return found


def declarations(root: type[Declaration] = Declaration) -> dict[str, type[Declaration]]:
    """Every declaration of the language by the name of its class."""
    return {c.__name__: c for each in root.__subclasses__() for c in (each, *declarations(each).values())}


def _with_sentences(root: type[Declaration]) -> dict[str, Any]:
    schema = root.model_json_schema(by_alias=True)
    known = declarations()
    for name, part in {**schema.get("$defs", {}), root.__name__: schema}.items():
        for key, sentence in key_sentences(known[name]).items():
            part["properties"][key]["description"] = sentence
    return schema


_TYPES = {"#/$defs/FieldDeclaration", "#/$defs/Param", "#/$defs/ValueDeclaration"}
_SHORT = {"type": "string", "pattern": r"^[a-z]+\??$", "description": "TYPE, or TYPE? for nullable"}
_DURATION = {"type": "string", "pattern": r"^([0-9.]+(ms|s|m|h|d))+$", "examples": ["200ms", "10s", "5m", "2h"]}


def _shortened(node: Any) -> Any:
    """The schema with the short forms that the language has beside what the declarations say: `integer?` for a type,
    a mapping of columns for the items of a list, one word for a list of one, `10s` for a duration."""
    if isinstance(node, list):
        return [_shortened(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("$ref") in _TYPES:
        return {"anyOf": [_SHORT, dict(node)]}
    if node.get("$ref") == "#/$defs/RecordDeclaration":
        return {"type": "object", "additionalProperties": {"anyOf": [_SHORT, {"$ref": "#/$defs/ValueDeclaration"}]}}
    if node.get("format") == "duration":
        return dict(_DURATION)
    changed = {key: _shortened(each) for key, each in node.items()}
    for name in ("models", "renamed_from"):
        listed = (changed.get("properties") or {}).get(name)
        if isinstance(listed, dict) and "items" in listed:
            changed["properties"][name] = {"anyOf": [listed["items"], listed]}
    return changed


def _text(schema: dict[str, Any], title: str) -> str:
    return json.dumps({"$schema": DIALECT, **schema, "title": title}, ensure_ascii=False, indent=2)
