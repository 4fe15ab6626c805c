"""The shelf of node kinds, one file each, and the table that finds a kind by the name a user writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module

from runner.nodes.base import Kind
from runner.nodes.plugins import load_plugin, loaded_plugins, plugin_names
from schemas.shapes import ModelShape
from schemas.types import ValueProblem


class Shelf(Mapping[str, Kind]):
    """Kinds by name, in the order of the documentation. Each is loaded when it is first asked for: a file of three
    kinds does not wait for thirty.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> Kind:
        kind: Kind = import_module(f"{__name__}.{self._modules[name]}").KIND
        return kind

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


MODEL_KINDS = Shelf(
    {
        "create": "create",
        "read": "read",
        "update": "update",
        "delete": "delete",
        "upsert": "upsert",
        "list": "list_rows",
        "count": "count",
        "aggregate": "aggregate",
        "bulk_create": "bulk_create",
        "bulk_update": "bulk_update",
        "bulk_delete": "bulk_delete",
        "bulk_upsert": "bulk_upsert",
    }
)
"""The kinds that every model gets."""

BUILT_IN_KINDS = Shelf(
    {
        "csv.read": "csv_read",
        "csv.write": "csv_write",
        "jsonl.read": "jsonl_read",
        "jsonl.write": "jsonl_write",
        "parquet.read": "parquet_read",
        "parquet.write": "parquet_write",
        "rows.transform": "transform",
        "sql.query": "sql_query",
        "sql.execute": "sql_execute",
        "python.call": "python_call",
        "assert": "assert_value",
        "text.format": "text_format",
        "log.info": "log_info",
        "file.find": "file_find",
        "file.move": "file_move",
        "http.request": "http_request",
        "gdpr.export": "gdpr_export",
        "gdpr.erase": "gdpr_erase",
    }
)
"""The kinds beside them, which belong to no model."""


def free_kinds() -> dict[str, Kind]:
    """All kinds that belong to no model: the built-in ones, then those of other packages."""
    return {**BUILT_IN_KINDS, **{n: k for n, k in loaded_plugins().items() if n not in BUILT_IN_KINDS}}


def resolve_node(text: str, models: Mapping[str, ModelShape]) -> tuple[Kind, ModelShape | None]:
    """The kind and the model that `Order.create` or `OrderCreateNode` names.

    Raises `ValueProblem` with the nearest known name.
    """
    if text in BUILT_IN_KINDS:
        return BUILT_IN_KINDS[text], None
    model, _, kind = text.partition(".")
    if not kind:
        model, kind = _long_name(text, models)
    if model in models and kind in MODEL_KINDS:
        return MODEL_KINDS[kind], models[model]
    if text in plugin_names():
        return load_plugin(text), None
    if model in models:
        raise ValueProblem(
            f"{model} has no node {kind!r}", kind="name", fix=_nearest(kind, list(MODEL_KINDS), f"{model}.")
        )
    names = [f"{name}.{kind if kind in MODEL_KINDS else 'create'}" for name in models]
    known = [*names, *BUILT_IN_KINDS, *plugin_names()]
    raise ValueProblem(f"there is no node {text!r}", kind="name", fix=_nearest(text, known))


def _long_name(text: str, models: Mapping[str, ModelShape]) -> tuple[str, str]:
    """`OrderBulkUpsertNode` → ("Order", "bulk_upsert"); ("", "") when it is no such name."""
    for model in sorted(models, key=len, reverse=True):
        if text.startswith(model) and text.endswith("Node"):
            words = text[len(model) : -len("Node")]
            kind = re.sub(r"(?<=.)(?=[A-Z])", "_", words).lower()
            if kind in MODEL_KINDS:
                return model, kind
    return "", ""


def _nearest(word: str, known: list[str], prefix: str = "") -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else "one of: " + ", ".join(known[:12])
