"""`encryption`: some fields of a model are sealed before they reach the database.

Owns how such a model looks in its table: bytes where the fields stood, and a keyed index beside each searchable one.
Sealing needs keys and the row's own key, which a rewrite does not have: `runner.encryption.sealing` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from runner.features.base import Scope
from runner.query import Query, Write
from schemas.filters import Filter
from schemas.names import cut
from schemas.shapes import NO_DEFAULT, FieldShape, IndexShape, ModelShape
from schemas.types import ValueType

_BYTES = ValueType("bytes")


class Encryption:
    """Marks the models that have encrypted fields."""

    name = "encryption"

    def columns(self) -> Mapping[str, FieldShape]:
        """None that a user could see."""
        return {}

    def visible(self, query: Query, scope: Scope) -> Filter | None:
        """Hides nothing."""
        return None

    def rewrite(self, write: Write, scope: Scope) -> Write:
        """The write as it is."""
        return write


FEATURE = Encryption()


def index_name(field: str) -> str:
    """The column with the keyed index of a searchable field."""
    return cut(f"{field}_index")


@lru_cache(maxsize=1024)
def stored_model(model: ModelShape) -> ModelShape:
    """The model as its table has it; the fields that a table alone has come last."""
    if not model.is_encrypted:
        return model
    fields: dict[str, FieldShape] = {}
    indexes: dict[str, FieldShape] = {}
    more: list[IndexShape] = []
    for name, field in model.fields.items():
        if not field.encrypted:
            fields[name] = field
            continue
        kind = replace(_BYTES, nullable=field.type.nullable)
        fields[name] = replace(field, type=kind, unique=False, default=NO_DEFAULT, check=None)
        if field.searchable:
            column = index_name(name)
            indexes[column] = FieldShape(column, kind, managed=True, unique=field.unique)
            if not field.unique:
                more.append(IndexShape(cut(f"ix_{model.table}_{column}"), (column,)))
    return replace(model, fields=fields | indexes, indexes=(*model.indexes, *more))
