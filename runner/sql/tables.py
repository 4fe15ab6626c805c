"""Models become tables: columns, keys, references, and named checks for what the types promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from runner.dialects.row_security import SECURED
from runner.dialects.types import SQLITE_PRECISION, Stored, column_type, to_sqlite
from runner.errors import DefinitionError, Problem
from runner.features.encryption import stored_model
from runner.features.soft_delete import LIVE
from runner.sql import fulltext
from runner.sql.filters import Database, condition
from schemas.conditions import All, AnyOf, Compare, Filter, Not
from schemas.filters import parse_filter
from schemas.names import cut
from schemas.shapes import NO_DEFAULT, TENANT, FieldShape, IndexShape, ModelShape
from schemas.types import ValueType


@compiles(sa.schema.CreateColumn, "sqlite")
def _create_column(element: sa.schema.CreateColumn, compiler: Any, **options: Any) -> str:
    """A column with a note of what its numbers or texts mean, where SQLite's type does not say it.

    The file keeps the note, so that a change from `date` to `uuid`, or of a decimal's scale, is seen as one.
    """
    text: str = compiler.visit_create_column(element, **options)
    kind = element.element.type
    note = _note(kind.value_type) if isinstance(kind, Stored) else ""
    return f"{text} /* {note} */" if note else text


def _note(kind: ValueType) -> str:
    if kind.kind == "decimal":
        return f"decimal({kind.precision},{kind.scale})"
    return "json" if kind.kind == "list" else kind.kind if kind.kind in _NOTED else ""


_NOTED = ("boolean", "date", "time", "datetime", "uuid", "json")


def build_tables(models: Mapping[str, ModelShape], database: Database) -> dict[str, sa.Table]:
    """The table of each model by its name, all in one MetaData.

    Raises `DefinitionError` DF601 for a decimal that SQLite cannot keep exactly.
    """
    metadata = sa.MetaData()
    return {name: _table(stored_model(model), models, metadata, database) for name, model in models.items()}


def _table(model: ModelShape, models: Mapping[str, ModelShape], metadata: sa.MetaData, database: Database) -> sa.Table:
    columns = [_column(model, field, database) for field in model.fields.values()]
    owner = [TENANT] if model.is_tenanted else []
    counted = [name for name, field in model.fields.items() if field.generated]
    table = sa.Table(
        model.table, metadata, *columns, sqlite_strict=True, sqlite_autoincrement=bool(counted),
        info={TENANT: bool(owner), SECURED: model.is_row_secured and database == "postgresql"},
    )  # fmt: skip
    if owner and counted and database == "sqlite":
        # AUTOINCREMENT wants the key alone; the numbers are dfrun's, so that no key of another tenant can be met
        table.append_constraint(sa.UniqueConstraint(*owner, *model.primary_key, name=_label("uq", model, "key")))
    elif owner:
        table.append_constraint(sa.PrimaryKeyConstraint(*owner, *model.primary_key))
    types = model.types
    # a deleted row frees its unique values
    live = condition(LIVE, dict(table.c), types, database) if "soft_delete" in model.features else None
    for name, field in model.fields.items():
        if field.references:
            table.append_constraint(_reference(model, field, models))
        if field.unique and live is None:
            table.append_constraint(sa.UniqueConstraint(*owner, name, name=_label("uq", model, name)))
        elif field.unique:
            columns = [table.c[n] for n in (*owner, name)]
            sa.Index(_label("uq", model, name), *columns, unique=True, postgresql_where=live, sqlite_where=live)
        for word, rule in _rules(field, table.c[name], types, database):
            table.append_constraint(sa.CheckConstraint(rule, name=_label(f"ck_{word}", model, name)))
    for index in model.indexes:
        if index.method != "btree" or index.condition is not None:
            if database == "postgresql":
                _postgresql_index(index, table, types)
            continue
        names = (*owner, *index.fields) if index.unique and TENANT not in index.fields else index.fields
        parts = [table.c[n].desc() if n in index.descending else table.c[n] for n in names]
        rows = live if index.unique else None
        sa.Index(index.name, *parts, unique=index.unique, postgresql_where=rows, sqlite_where=rows)
    return table


def _postgresql_index(index: IndexShape, table: sa.Table, types: Mapping[str, ValueType]) -> None:
    """An index over words, over JSON, whose paths are asked by containment, or over the rows that meet a condition."""
    if index.method == "words":
        sa.Index(index.name, fulltext.document(index, table), postgresql_using="gin")
        return
    if index.method == "gin":
        ops = dict.fromkeys(index.fields, "jsonb_path_ops")
        sa.Index(index.name, *(table.c[n] for n in index.fields), postgresql_using="gin", postgresql_ops=ops)
        return
    parts = [table.c[n].desc() if n in index.descending else table.c[n] for n in index.fields]
    rows = condition(parse_filter(index.condition, types), dict(table.c), types, "postgresql")
    sa.Index(index.name, *parts, postgresql_where=rows)


def _reference(model: ModelShape, field: FieldShape, models: Mapping[str, ModelShape]) -> sa.ForeignKeyConstraint:
    """The reference of a field. Between tenanted models it contains the tenant, so that no other's row can be named."""
    assert field.references is not None
    target, column = models[field.references[0]], field.references[1]
    owner = [TENANT] if model.is_tenanted and target.is_tenanted else []
    on_delete = field.on_delete
    if owner and on_delete == "set_null":
        on_delete = "restrict"  # it would set the tenant to null, too: `runner.access` does it
    columns, targets = [*owner, field.name], [f"{target.table}.{name}" for name in (*owner, column)]
    return sa.ForeignKeyConstraint(
        columns, targets, name=_label("fk", model, field.name), ondelete=on_delete.replace("_", " ").upper()
    )


def _column(model: ModelShape, field: FieldShape, database: Database) -> sa.Column[Any]:
    kind = field.type
    if database == "sqlite" and kind.kind == "decimal" and (kind.precision or 0) > SQLITE_PRECISION:
        what = f"{model.name}.{field.name} is {kind}, SQLite keeps at most {SQLITE_PRECISION} digits exactly"
        raise DefinitionError(Problem("DF601", what, fix=f"precision: {SQLITE_PRECISION}, or use PostgreSQL"))
    extras: list[sa.schema.SchemaItem] = [sa.Identity()] if field.generated and database == "postgresql" else []
    default = None
    if field.default is not NO_DEFAULT and field.default is not None:
        default = sa.DefaultClause(sa.literal(field.default, column_type(kind)))
        if kind.kind in ("json", "list"):
            # JSONB has no literal form of its own; its text is one on both databases
            default = sa.DefaultClause(str(to_sqlite(kind, field.default)))
    type_: Any = column_type(kind) if not field.generated else sa.Integer() if database == "sqlite" else sa.BigInteger()
    return sa.Column(
        field.name, type_, *extras, primary_key=_is_key_alone(model, field, database), nullable=kind.nullable,
        server_default=default, autoincrement=field.generated,
    )  # fmt: skip


def _is_key_alone(model: ModelShape, field: FieldShape, database: Database) -> bool:
    """Whether the column is a key by itself; in a tenanted model the key contains the tenant."""
    return field.primary_key and (not model.is_tenanted or (field.generated and database == "sqlite"))


def _rules(
    field: FieldShape, column: sa.Column[Any], types: Mapping[str, ValueType], database: Database
) -> list[tuple[str, sa.ColumnElement[bool]]]:
    kind = field.type
    rules: list[tuple[str, sa.ColumnElement[bool]]] = []
    if kind.kind == "enum":
        rules.append(("values", column.in_([sa.literal_column(_quoted(value)) for value in kind.values])))
    if database == "sqlite" and kind.max_length is not None:
        rules.append(("length", sa.func.length(column) <= sa.literal_column(str(kind.max_length))))
    if database == "sqlite" and kind.kind == "boolean":
        rules.append(("values", column.in_([sa.literal_column("0"), sa.literal_column("1")])))
    if database == "sqlite" and kind.kind == "decimal":
        largest: sa.ColumnElement[int] = sa.literal_column(str(10 ** (kind.precision or SQLITE_PRECISION) - 1))
        units = sa.type_coerce(column, sa.BigInteger())
        rules.append(("digits", sa.and_(units <= largest, units >= -largest)))
    if field.check is not None:
        tree = parse_filter({field.name: field.check}, types)
        if database == "sqlite":
            tree = _spelled_out(tree)
        # a check holds for null, as it does in SQL: whether null is allowed says the type
        rules.append(("check", sa.or_(column.is_(None), condition(tree, {field.name: column}, types, database))))
    return rules


def _spelled_out(tree: Filter) -> Filter:
    """The filter with each list taken apart: SQLite allows no subquery in a check."""
    match tree:
        case All(parts):
            return All(tuple(map(_spelled_out, parts)))
        case AnyOf(parts):
            return AnyOf(tuple(map(_spelled_out, parts)))
        case Not(inside):
            return Not(_spelled_out(inside))
        case Compare(field, "$in", values):
            assert isinstance(values, (list, tuple)), "a check knows its operands"
            return AnyOf(tuple(Compare(field, "$eq", value) for value in values))
    return tree


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _label(prefix: str, model: ModelShape, field: str) -> str:
    return cut(f"{prefix}_{model.table}_{field}")
