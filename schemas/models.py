"""What `models.yaml` may say: models, their fields, keys, references, checks and indexes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from schemas.base import NAME, Declaration, Name, Switch
from schemas.values import ValueDeclaration, read_value_declaration

_NAME = NAME.strip("^$")
ModelField = Annotated[str, StringConstraints(pattern=rf"^{_NAME}\.{_NAME}$")]
IndexField = Annotated[str, StringConstraints(pattern=rf"^-?{_NAME}$")]


def _names(raw: object) -> object:
    return [raw] if isinstance(raw, str) else raw


class FieldDeclaration(ValueDeclaration):
    """One field: its type, and what the database promises about it."""

    primary_key: Switch = False
    """This field is the key of the table, instead of the generated `id`."""
    unique: Switch = False
    """No two rows have the same value; the field can then be the key of a read or an upsert."""
    index: Switch = False
    """An index on this field alone."""
    references: ModelField | None = None
    """`Model.field` whose values this one holds; a foreign key."""
    on_delete: Literal["restrict", "cascade", "set_null"] = "restrict"
    """What happens to this row when the referenced one is deleted."""
    pii: Switch = False
    """Personal data: never shown in logs and messages."""
    renamed_from: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Earlier names, so that a rename is not read as a drop and an add."""


class Index(Declaration):
    """An index; `-` before a field makes it descending."""

    name: Name | None = None
    """Its name in the database; made from the table and the fields without it."""
    fields: Annotated[tuple[IndexField, ...], Field(min_length=1)]
    """The fields, in order; `-` before one makes it descending."""
    unique: Switch = False
    """No two rows have the same values in these fields."""
    renamed_from: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Earlier names."""


class Encryption(Declaration):
    """The fields that are sealed before they reach the database."""

    fields: tuple[Name, ...] = ()
    """Sealed: nothing but whether they are null can be asked of them."""
    searchable: tuple[Name, ...] = ()
    """Sealed, and found by equality."""


class Features(Declaration):
    """What a model does by itself."""

    timestamps: Switch = True
    """`created_at` and `updated_at`, written by the program alone."""
    soft_delete: Switch = False
    """A delete sets `deleted_at` and hides the row."""
    audit_log: Switch = False
    """Every change is recorded in its transaction: what was before and after, by whom, when, in which run and step."""
    encryption: Encryption | None = None
    """The fields that are sealed, and those of them that can be searched by equality."""
    multi_tenant: Switch = False
    """Every row belongs to a tenant, and a run sees and writes the rows of its own alone."""
    versioned: Switch = False
    """`version` counts the changes of a row; `expected_version` says which one a writer has seen."""


class PartialIndex(Declaration):
    """An index over the rows that meet a condition."""

    name: Name | None = None
    """Its name in the database; made from the table and the fields without it."""
    fields: Annotated[tuple[IndexField, ...], Field(min_length=1)]
    """The fields, in order; `-` before one makes it descending."""
    condition: dict[str, object]
    """Which rows, in the filter language; not a path into json."""


class Postgresql(Declaration):
    """Indexes of a kind that PostgreSQL has."""

    jsonb_gin_indexes: tuple[Name, ...] = ()
    """Fields of type json or list with a GIN index, which answers equality on the paths into them."""
    partial_indexes: tuple[PartialIndex, ...] = ()
    """Indexes over some of the rows."""
    text_search: tuple[Name, ...] = ()
    """Fields of type string or text whose words `search` finds; the one key here that SQLite answers, too."""


def _subject(raw: object) -> object:
    """`true` stands for the model itself, anything else is the name of a field."""
    return True if isinstance(raw, str) and getattr(raw, "plain", True) and raw == "true" else raw


class Model(Declaration):
    """One table."""

    description: str = ""
    """What a row is, for readers."""
    fields: Annotated[
        dict[Name, Annotated[FieldDeclaration, BeforeValidator(read_value_declaration)]], Field(min_length=1)
    ]
    """The fields by name; the short form of one is its type, such as `integer?`."""
    features: Features = Field(default_factory=Features)
    """What the model does by itself."""
    subject: Annotated[Literal[True] | Name | None, BeforeValidator(_subject)] = None
    """`true`: each row is a subject, with data keys of its own that `gdpr.erase` destroys; or the field that references
    the subject to which a row belongs. Encrypted fields are sealed with them."""
    indexes: tuple[Index, ...] = ()
    """Indexes over one field or more."""
    postgresql: Postgresql = Field(default_factory=Postgresql)
    """Indexes of a kind that PostgreSQL has."""
    renamed_from: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Earlier names of the model."""
    keep_old_name: Switch = False
    """A rename leaves a view under the former name for code of the previous release, until the migration's last phase;
    on PostgreSQL, where a migration has phases."""
    removed: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Fields that were dropped on purpose, so that nobody asks whether a new field is one of them renamed."""
    on_drop: Literal["trash", "drop", "forbid"] = "trash"
    """What a migration does with a field that left the model: rename it into the trash, drop it, or refuse."""


ModelName = Annotated[str, StringConstraints(pattern=NAME)]


class Models(Declaration):
    """A whole `models.yaml`."""

    models: Annotated[dict[ModelName, Model], Field(min_length=1)]
    """The models by name; each becomes a table named in snake_case."""
