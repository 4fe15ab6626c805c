"""What `models.yaml` may say: models, their fields, keys, references, checks and indexes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from schemas.base import NAME, Declaration, Name, Switch
from schemas.values import ValueDeclaration, read_value_declaration

NOT_BUILT_FEATURES = frozenset({"multi_tenant", "soft_delete", "versioned", "audit_log", "encryption"})
"""Features of the language that are known and not built yet; the loader says so."""

ModelField = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w{0,62}\.[A-Za-z_]\w{0,62}$")]
IndexField = Annotated[str, StringConstraints(pattern=r"^-?[A-Za-z_]\w{0,62}$")]


def _names(raw: object) -> object:
    return [raw] if isinstance(raw, str) else raw


class FieldDeclaration(ValueDeclaration):
    """One field: its type, and what the database promises about it."""

    primary_key: Switch = False
    unique: Switch = False
    index: Switch = False
    references: ModelField | None = None
    on_delete: Literal["restrict", "cascade", "set_null"] = "restrict"
    pii: Switch = False
    renamed_from: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()


class Index(Declaration):
    """An index; `-` before a field makes it descending."""

    name: Name | None = None
    fields: Annotated[tuple[IndexField, ...], Field(min_length=1)]
    unique: Switch = False
    renamed_from: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()


class Features(Declaration):
    """What a model does by itself."""

    timestamps: Switch = True


class Model(Declaration):
    """One table."""

    description: str = ""
    fields: Annotated[
        dict[Name, Annotated[FieldDeclaration, BeforeValidator(read_value_declaration)]], Field(min_length=1)
    ]
    features: Features = Features()
    indexes: tuple[Index, ...] = ()
    renamed_from: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()


ModelName = Annotated[str, StringConstraints(pattern=NAME)]


class Models(Declaration):
    """A whole `models.yaml`."""

    models: Annotated[dict[ModelName, Model], Field(min_length=1)]
