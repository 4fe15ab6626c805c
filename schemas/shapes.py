"""A model as the rest of the program sees it: every field, the managed ones included, each with its value type.

`schemas.models` is what the author wrote; `runner.catalog` turns that into these shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.types import ValueType

NO_DEFAULT = object()
TENANT = "tenant_id"
"""The column that says whose row it is, in models with `multi_tenant`."""


@dataclass(frozen=True, slots=True)
class FieldShape:
    """One column. `managed` fields are written by the program alone; `generated` ones by the database (identity).

    `default` is a value of the field's type or NO_DEFAULT; `references` is (model, field); `check` is the raw filter
    as written (operators on this field), None without one. `renamed_from` has former names, `renamed_values` the former
    name of an enum's value.
    """

    name: str
    type: ValueType
    managed: bool = False
    generated: bool = False
    primary_key: bool = False
    unique: bool = False
    default: object = NO_DEFAULT
    references: tuple[str, str] | None = None
    on_delete: str = "restrict"
    check: object = None
    sensitive: bool = False
    renamed_from: tuple[str, ...] = ()
    renamed_values: Mapping[str, str] = field(default_factory=dict, hash=False)
    encrypted: bool = False
    searchable: bool = False

    @property
    def required(self) -> bool:
        """Whether an insert must bring a value."""
        return not (self.managed or self.generated or self.type.nullable or self.default is not NO_DEFAULT)


@dataclass(frozen=True, slots=True)
class IndexShape:
    """An index over columns; `descending` holds the names that stand with `-`. method: `btree`, `gin` over the paths
    into json, or `words`, which a search asks."""

    name: str
    fields: tuple[str, ...]
    descending: frozenset[str] = frozenset()
    unique: bool = False
    condition: object = field(default=None, hash=False)
    method: str = "btree"
    renamed_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubjectShape:
    """Whose data a row is: that of the row of `model` whose key stands in `field`, which may be the row itself.
    `tables` are the names of that model's table, the present one first."""

    model: str
    field: str
    tables: tuple[str, ...]
    is_tenanted: bool


@dataclass(frozen=True, slots=True)
class ModelShape:
    """One model: `table` is its name in the database (snake_case of the model's name), `fields` in column order;
    `is_row_secured`: the database keeps its tenants apart, too; `subject`: whose data key seals a row."""

    name: str
    table: str
    fields: Mapping[str, FieldShape] = field(hash=False)
    primary_key: tuple[str, ...]
    indexes: tuple[IndexShape, ...] = ()
    features: frozenset[str] = frozenset()
    renamed_from: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    on_drop: str = "trash"
    keeps_old_name: bool = False
    is_row_secured: bool = False
    subject: SubjectShape | None = None

    @property
    def is_subject(self) -> bool:
        """Whether each row is a person or another whose data can be erased."""
        return self.subject is not None and self.subject.model == self.name

    @property
    def row(self) -> ValueType:
        """The type of one whole row."""
        return ValueType("record", fields={name: f.type for name, f in self.fields.items()})

    @property
    def rows(self) -> ValueType:
        """The type of a stream of whole rows."""
        return ValueType("rows", fields={name: f.type for name, f in self.fields.items()})

    @property
    def is_tenanted(self) -> bool:
        """Whether each row belongs to a tenant."""
        return "multi_tenant" in self.features

    @property
    def is_encrypted(self) -> bool:
        """Whether some fields are sealed."""
        return "encryption" in self.features

    def sealed_names(self, name: str) -> tuple[str, ...]:
        """`table.field` as a sealed value may be bound to it: the present name first, then every older one."""
        fields = (name, *self.fields[name].renamed_from)
        return tuple(f"{table}.{field}" for table in (self.table, *self.renamed_from) for field in fields)

    @property
    def text_search(self) -> IndexShape | None:
        """The index over the words of some fields; None where nothing can be searched."""
        return next((index for index in self.indexes if index.method == "words"), None)

    @property
    def types(self) -> dict[str, ValueType]:
        """The type of each field, by its name."""
        return {name: f.type for name, f in self.fields.items()}

    @property
    def writable(self) -> dict[str, FieldShape]:
        """The fields a user may write."""
        return {name: f for name, f in self.fields.items() if not (f.managed or f.generated)}

    def why_not_written(self, name: str) -> str:
        """Why a user gives no value for this field; "" when the reason is another, or there is no such field."""
        field = self.fields.get(name)
        return f"{name!r} is written by dfrun alone" if field and (field.managed or field.generated) else ""

    def unique_keys(self) -> list[tuple[str, ...]]:
        """The column sets that identify one row: the primary key first."""
        keys = [self.primary_key, *((n,) for n, f in self.fields.items() if f.unique)]
        keys += [i.fields for i in self.indexes if i.unique and i.condition is None]
        return list(dict.fromkeys(keys))
