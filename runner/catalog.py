"""Declarations become the catalog: every model with all its fields, references checked. Builds no tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from runner.errors import DefinitionError, Place, Problem, did_you_mean
from runner.features import ORDER
from runner.features.base import Feature
from runner.source import Document
from schemas.filters import parse_filter
from schemas.models import FieldDeclaration, Model, Models
from schemas.names import cut
from schemas.parsing import parse_value
from schemas.paths import JSON_KINDS
from schemas.shapes import NO_DEFAULT, FieldShape, IndexShape, ModelShape, SubjectShape
from schemas.types import ValueProblem, ValueType
from schemas.values import EnumValue


@dataclass(frozen=True, slots=True)
class Catalog:
    """All models by name; `place` tells where a field was declared."""

    models: Mapping[str, ModelShape] = field(hash=False)
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict, hash=False)

    def place(self, model: str, name: str) -> Place | None:
        """Where the field was declared; None for managed fields."""
        return self.places.get((model, name))


def build_catalog(files: Collection[tuple[Document, Models]], *, row_security: bool = False) -> Catalog:
    """The catalog of one or more files of models. row_security: the database keeps tenants apart, too.

    Raises `DefinitionError` with every problem of all of them."""
    problems: list[Problem] = []
    models: dict[str, ModelShape] = {}
    places: dict[tuple[str, str], Place] = {}
    homes: dict[str, Document] = {}
    for document, declared in files:
        for name, model in declared.models.items():
            at = ("models", name)
            taken = next((n for n, m in models.items() if m.table == table_name(name)), None)
            if taken:
                what = (
                    f"the model {name!r} is declared twice"
                    if taken == name
                    else f"{name!r} and {taken!r} share a table"
                )
                problems.append(Problem("DF201", what, document.place(at, key=True), "", "rename one of them"))
                continue
            shape = _shape(name, model, document, problems)
            models[name] = replace(shape, is_row_secured=row_security and shape.is_tenanted)
            homes[name] = document
            places |= {(name, f): document.place((*at, "fields", f), key=True) for f in model.fields}
    said = {name: model.subject for _, declared in files for name, model in declared.models.items()}
    for name, shape in models.items():
        _check_references(shape, models, homes[name], problems)
    for name, shape in models.items():
        if said[name] is not None:
            models[name] = replace(shape, subject=_subject_of(shape, said, models, homes[name], problems))
    _check_names(models, homes, problems)
    if problems:
        raise DefinitionError(problems)
    return Catalog(models, places)


def table_name(model: str) -> str:
    """`OrderItem` → `order_item`."""
    return cut(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", model).lower())


def unique_name(table: str, column: str) -> str:
    """What the database calls the rule of a unique field."""
    return cut(f"uq_{table}_{column}")


def _shape(name: str, model: Model, document: Document, problems: list[Problem]) -> ModelShape:
    at: tuple[str | int, ...] = ("models", name)
    fields: dict[str, FieldShape] = {}
    keys = tuple(n for n, declared in model.fields.items() if declared.primary_key)
    features = _features(model)
    managed = {column: field for feature in features for column, field in feature.columns().items()}
    if not keys:
        keys = ("id",)
        if "id" not in model.fields:
            fields["id"] = FieldShape("id", ValueType("integer"), generated=True, primary_key=True)
    for field_name, declared in model.fields.items():
        place = document.place((*at, "fields", field_name), key=True)
        if field_name in managed:
            owner = next(feature.name for feature in features if field_name in feature.columns())
            problems.append(Problem("DF202", f"{field_name!r} is managed by dfrun", place, f"it belongs to {owner}",
                                    f"remove the field, or set features: {{{owner}: false}}"))  # fmt: skip
            continue
        fields[field_name] = _field(field_name, declared, (*at, "fields", field_name), document, problems,
                                    field_name in keys)  # fmt: skip
    fields |= managed
    lower: dict[str, str] = {}
    for column in fields:
        if lower.setdefault(column.lower(), column) != column:
            place = document.place((*at, "fields", column), key=True)
            problems.append(Problem("DF203", f"{column!r} and {lower[column.lower()]!r} differ by case only", place))
    _seal(name, model, fields, document, problems)
    indexes = _indexes(name, model, fields, document, problems)
    return ModelShape(name, table_name(name), fields, keys, indexes, frozenset(f.name for f in features),
                      tuple(map(table_name, model.renamed_from)), model.removed, model.on_drop,
                      model.keep_old_name)  # fmt: skip


def _seal(name: str, model: Model, fields: dict[str, FieldShape], document: Document, problems: list[Problem]) -> None:
    """Mark the encrypted fields; tell what they cannot be, because the database sees sealed bytes."""
    declared = model.features.encryption
    if declared is None:
        return
    indexed = {column.removeprefix("-") for index in model.indexes for column in index.fields}
    indexed |= {column for column, field in model.fields.items() if field.index} | {*model.postgresql.jsonb_gin_indexes}
    indexed |= {*model.postgresql.text_search}
    for word, names in (("fields", declared.fields), ("searchable", declared.searchable)):
        for number, column in enumerate(names):
            place = document.place(("models", name, "features", "encryption", word, number))
            field = fields.get(column)
            if field is None or field.managed:
                fix = did_you_mean(column, model.fields)
                problems.append(Problem("DF207", f"{name} has no field {column!r}", place, "", fix))
                continue
            is_searchable = column in declared.searchable
            cannot = {
                "the primary key": field.primary_key, "a reference": field.references is not None,
                "in an index": column in indexed, "unique unless it is searchable": field.unique and not is_searchable,
                "checked": field.check is not None, "given a default": field.default is not NO_DEFAULT,
            }  # fmt: skip
            for what in (words for words, holds in cannot.items() if holds):
                why = "the database sees sealed bytes"
                problems.append(Problem("DF222", f"{column!r} is encrypted and cannot be {what}", place, why))
            fields[column] = replace(field, encrypted=True, searchable=is_searchable, sensitive=True)


def _subject_of(
    shape: ModelShape, said: Mapping[str, bool | str | None], models: Mapping[str, ModelShape], document: Document,
    problems: list[Problem],
) -> SubjectShape | None:  # fmt: skip
    """Whose data the rows of a model are, as it says itself."""
    name, word = shape.name, said[shape.name]
    place = document.place(("models", name, "subject"))
    why = "a subject has data keys of its own, which seal the encrypted fields of all rows that belong to it"
    wrong, fix = "", ""
    subject, field = shape, shape.fields[shape.primary_key[0]]
    if word is True:
        if len(shape.primary_key) > 1:
            wrong, fix = f"the key of {name} has parts", "a subject has one key: id"
    elif word not in shape.fields:
        wrong, fix = f"{name} has no field {word!r}", did_you_mean(str(word), shape.fields)
    else:
        field = shape.fields[str(word)]
        target = field.references[0] if field.references else ""
        subject = models.get(target, shape)
        if target not in models:
            wrong, fix = f"{word!r} references no subject", f"name the field of {name} that does"
        elif said[target] is not True:
            wrong, fix = f"{target} is not a subject", f"subject: true in {target}"
        elif field.references != (target, subject.primary_key[0]):
            wrong = f"{word!r} does not reference the key of {target}"
            fix = f"references: {target}.{subject.primary_key[0]}"
        elif field.on_delete == "set_null":
            wrong, fix = f"a row cannot lose its subject, and {word!r} has on_delete: set_null", "on_delete: cascade"
        elif not shape.is_encrypted:
            wrong, fix = f"{name} has no encrypted fields", "features: {encryption: {fields: […]}}"
    if wrong:
        problems.append(Problem("DF229", wrong, place, why, fix))
        return None
    return SubjectShape(subject.name, field.name, (subject.table, *subject.renamed_from), subject.is_tenanted)


def _features(model: Model) -> list[Feature]:
    return [feature for feature in ORDER if getattr(model.features, feature.name)]


def _field(
    name: str, declared: FieldDeclaration, at: tuple[str | int, ...], document: Document, problems: list[Problem],
    is_key: bool,
) -> FieldShape:  # fmt: skip
    kind = declared.value_type()
    default: object = NO_DEFAULT
    if kind.kind == "list" and _has_bytes(kind):
        why = "a list is kept as JSON, which has no bytes"
        place = document.place((*at, "items"))
        problems.append(Problem("DF227", f"{name!r} is a list with bytes", place, why, "base64 text: items: string"))
    if is_key and kind.nullable:
        what = f"the key {name!r} may not be null"
        problems.append(
            Problem("DF204", what, document.place(at, key=True), "a key identifies its row", "drop the `?`")
        )
    if "default" in declared.model_fields_set:
        try:
            default = parse_value(kind, declared.default)
        except ValueProblem as problem:
            place = document.place((*at, "default", *problem.path))
            problems.append(Problem("DF205", f"default of {name!r}: {problem.what}", place, problem.why, problem.fix))
    if declared.check is not None:
        try:
            parse_filter({name: declared.check}, {name: kind})
            if kind.kind in JSON_KINDS:
                why = "a check of a table may not look into arrays, on either database"
                raise ValueProblem(f"a field of type {kind.kind} has no check", (name,), why=why)
        except ValueProblem as found:
            for each in found.all():
                place = document.place((*at, "check", *each.path[1:]), key=each.key)
                problems.append(Problem("DF211", f"check of {name!r}: {each.what}", place, each.why, each.fix))
    references = None
    if declared.references:
        model, _, target = declared.references.partition(".")
        references = (model, target)
        if declared.on_delete == "set_null" and not kind.nullable:
            place = document.place((*at, "on_delete"))
            problems.append(Problem("DF206", f"{name!r} cannot become null", place, "", "declare it nullable"))
    return FieldShape(
        name, kind, primary_key=is_key, unique=declared.unique, default=default, references=references,
        on_delete=declared.on_delete, check=declared.check, sensitive=declared.pii, renamed_from=declared.renamed_from,
        renamed_values={v.value: v.renamed_from for v in declared.values or () if isinstance(v, EnumValue)},
    )  # fmt: skip


def _has_bytes(kind: ValueType) -> bool:
    """Whether a value of this type contains bytes."""
    inside = [*([kind.items] if kind.items else []), *(kind.fields or {}).values()]
    return kind.kind == "bytes" or any(map(_has_bytes, inside))


def _indexes(
    name: str, model: Model, fields: Mapping[str, FieldShape], document: Document, problems: list[Problem]
) -> tuple[IndexShape, ...]:
    table, found = table_name(name), []
    for number, index in enumerate(model.indexes):
        names = tuple(f.removeprefix("-") for f in index.fields)
        for position, column in enumerate(names):
            if column not in fields:
                place = document.place(("models", name, "indexes", number, "fields", position))
                problems.append(
                    Problem("DF207", f"{name} has no field {column!r}", place, "", did_you_mean(column, fields))
                )
        down = frozenset(f[1:] for f in index.fields if f.startswith("-"))
        label = index.name or cut(f"{'uq' if index.unique else 'ix'}_{table}_{'_'.join(names)}")
        found.append(IndexShape(label, names, down, index.unique, renamed_from=index.renamed_from))
    found += [IndexShape(cut(f"ix_{table}_{n}"), (n,)) for n, declared in model.fields.items() if declared.index]
    found += _postgresql_indexes(name, model, fields, document, problems)
    return (*found, *_text_search(name, model, fields, document, problems))


def _text_search(
    name: str, model: Model, fields: Mapping[str, FieldShape], document: Document, problems: list[Problem]
) -> list[IndexShape]:
    """The index over the words of the fields that a search looks into."""
    names = model.postgresql.text_search
    for number, column in enumerate(names):
        place = document.place(("models", name, "postgresql", "text_search", number))
        if column not in fields:
            fix = did_you_mean(column, fields)
            problems.append(Problem("DF207", f"{name} has no field {column!r}", place, "", fix))
        elif fields[column].type.kind not in ("string", "text"):
            what = f"{column!r} is {fields[column].type}, a search looks into string and text"
            problems.append(Problem("DF226", what, place, "", "a filter finds its values"))
        elif column in names[:number]:
            problems.append(Problem("DF226", f"{column!r} stands twice", place))
    return [IndexShape(cut(f"fts_{table_name(name)}"), names, method="words")] if names else []


def _postgresql_indexes(
    name: str, model: Model, fields: Mapping[str, FieldShape], document: Document, problems: list[Problem]
) -> list[IndexShape]:
    """The indexes that only PostgreSQL has."""
    table, found = table_name(name), list[IndexShape]()
    at: tuple[str | int, ...] = ("models", name, "postgresql")
    types = {n: field.type for n, field in fields.items()}
    for number, column in enumerate(model.postgresql.jsonb_gin_indexes):
        place = document.place((*at, "jsonb_gin_indexes", number))
        if column not in fields:
            fix = did_you_mean(column, fields)
            problems.append(Problem("DF207", f"{name} has no field {column!r}", place, "", fix))
        elif types[column].kind not in JSON_KINDS:
            what = f"{column!r} is {types[column]}, a GIN index here is for json"
            problems.append(Problem("DF225", what, place, "", "index: true"))
        found.append(IndexShape(cut(f"gin_{table}_{column}"), (column,), method="gin"))
    for number, index in enumerate(model.postgresql.partial_indexes):
        here = (*at, "partial_indexes", number)
        names = tuple(f.removeprefix("-") for f in index.fields)
        for position, column in enumerate(names):
            if column not in fields:
                place, fix = document.place((*here, "fields", position)), did_you_mean(column, fields)
                problems.append(Problem("DF207", f"{name} has no field {column!r}", place, "", fix))
        try:
            plain = {n: kind for n, kind in types.items() if kind.kind not in JSON_KINDS}
            if not index.condition:
                raise ValueProblem("an empty condition is every row", kind="shape", fix="declare it under indexes")
            parse_filter(index.condition, plain)
        except ValueProblem as wrong:
            for each in wrong.all():
                place = document.place((*here, "condition", *each.path), key=each.key)
                problems.append(Problem("DF225", f"condition: {each.what}", place, each.why, each.fix))
        down = frozenset(f[1:] for f in index.fields if f.startswith("-"))
        label = index.name or cut(f"px_{table}_{'_'.join(names)}")
        found.append(IndexShape(label, names, down, condition=index.condition))
    return found


def _check_names(models: Mapping[str, ModelShape], homes: Mapping[str, Document], problems: list[Problem]) -> None:
    """Tables, unique fields and indexes have their names from one space in the database; each may be there once."""
    taken = {model.table: f"the table of {name}" for name, model in models.items()}
    why = "the database knows each by its name"
    for name, model in models.items():
        for column in (f.name for f in model.fields.values() if f.unique):
            label, said = unique_name(model.table, column), f"the unique rule of {name}.{column}"
            if owner := taken.get(label):
                place = homes[name].place(("models", name, "fields", column), key=True)
                fix = f"in place of unique: true, indexes: [{{name: …, fields: [{column}], unique: true}}]"
                problems.append(Problem("DF228", f"{said} and {owner} are both called {label!r}", place, why, fix))
            taken[label] = said
    for name, model in models.items():
        for number, index in enumerate(model.indexes):
            owner = taken.get(index.name)
            said = f"the index over {', '.join(index.fields)} of {name}"
            if owner is None:
                taken[index.name] = said
                continue
            is_declared = homes[name].at(("models", name, "indexes", number)) is not None
            place = homes[name].place(("models", name, "indexes", number) if is_declared else ("models", name))
            fix = "leave one of them out, or give the index a name of its own: name: …"
            problems.append(Problem("DF228", f"{said} and {owner} are both called {index.name!r}", place, why, fix))


def _check_references(
    shape: ModelShape, models: Mapping[str, ModelShape], document: Document, problems: list[Problem]
) -> None:
    for name, column in shape.fields.items():
        if column.references is None:
            continue
        place = document.place(("models", shape.name, "fields", name, "references"))
        model, target = column.references
        if model not in models:
            problems.append(Problem("DF208", f"there is no model {model!r}", place, "", did_you_mean(model, models)))
            continue
        other = models[model]
        if target not in other.fields:
            fix = did_you_mean(target, other.fields, prefix=f"{model}.")
            problems.append(Problem("DF208", f"{model} has no field {target!r}", place, "", fix))
        elif other.fields[target].encrypted:
            what = f"{model}.{target} is encrypted"
            problems.append(Problem("DF222", what, place, "the database sees sealed bytes", f"references: {model}.id"))
        elif (target,) not in other.unique_keys():
            why = "a reference needs a target that identifies one row"
            problems.append(Problem("DF209", f"{model}.{target} is not unique", place, why, "mark it unique: true"))
        elif other.is_tenanted and not shape.is_tenanted:
            why = f"the rows of {model} belong to tenants, those of {shape.name} to all"
            fix = f"features: {{multi_tenant: true}} in {shape.name}, too"
            problems.append(Problem("DF221", f"{shape.name} cannot reference {model}", place, why, fix))
        elif "soft_delete" in other.features and (target,) != other.primary_key:
            why = f"a deleted {model} frees its {target}, and the reference would lead nowhere"
            fix = f"references: {model}.{other.primary_key[0]}"
            problems.append(Problem("DF220", f"{model}.{target} may be given again", place, why, fix))
        elif other.fields[target].type.kind != column.type.kind:
            what = f"{name!r} is {column.type}, {model}.{target} is {other.fields[target].type}"
            problems.append(Problem("DF210", what, place, "a reference has the type of its target"))
