"""The shelf of node kinds, one file each, and the table that finds a kind by the name a user writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from runner.nodes import (
    aggregate,
    assert_value,
    bulk_create,
    bulk_delete,
    bulk_update,
    bulk_upsert,
    count,
    create,
    csv_read,
    csv_write,
    delete,
    file_find,
    file_move,
    gdpr_erase,
    gdpr_export,
    jsonl_read,
    jsonl_write,
    list_rows,
    log_info,
    parquet_read,
    parquet_write,
    python_call,
    read,
    sql_execute,
    sql_query,
    text_format,
    transform,
    update,
    upsert,
)
from runner.nodes.base import Kind
from runner.nodes.plugins import load_plugin, loaded_plugins, plugin_names
from schemas.shapes import ModelShape
from schemas.types import ValueProblem

MODEL_KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        create.KIND,
        read.KIND,
        update.KIND,
        delete.KIND,
        upsert.KIND,
        list_rows.KIND,
        count.KIND,
        aggregate.KIND,
        bulk_create.KIND,
        bulk_update.KIND,
        bulk_delete.KIND,
        bulk_upsert.KIND,
    )
}
"""The kinds that every model gets, in the order of the documentation."""

BUILT_IN_KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        csv_read.KIND, csv_write.KIND, jsonl_read.KIND, jsonl_write.KIND, parquet_read.KIND, parquet_write.KIND,
        transform.KIND, sql_query.KIND, sql_execute.KIND, python_call.KIND, assert_value.KIND, text_format.KIND,
        log_info.KIND, file_find.KIND, file_move.KIND, gdpr_export.KIND, gdpr_erase.KIND,
    )
}  # fmt: skip
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
