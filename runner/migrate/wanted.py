"""The wanted side: the statements that make an empty database as the models say, and the authors' hints about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from runner.dialects.row_security import SECURED, secured
from runner.sql import fulltext
from runner.sql.filters import Database
from runner.sql.tables import build_tables
from schemas.shapes import ModelShape

_NOW = {"postgresql": "CURRENT_TIMESTAMP", "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"}


@dataclass(frozen=True, slots=True)
class Hint:
    """`renamed_from` of a model, a field, an index or a value of an enum; `old` are the former names, newest first.
    `name` is empty for a model, `value` for all but a value."""

    kind: str
    table: str
    name: str
    old: tuple[str, ...]
    value: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """`statements` build it; `digest` names them. `models` gives the model of each table.

    sources: the file of models of each table, by its path in the project; a table is taken for dropped only where its
    own file is read and does not name it any more.
    fills: SQL for the rows that are there when a managed field without a default is added.
    removed: columns that the author says were dropped on purpose.
    """

    database: Database
    statements: tuple[str, ...]
    models: Mapping[str, str]
    hints: tuple[Hint, ...] = ()
    fills: Mapping[tuple[str, str], str] = field(default_factory=dict)
    on_drop: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[tuple[str, str]] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict)
    read: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """`sha256:` of the statements."""
        return "sha256:" + hashlib.sha256(";\n".join(self.statements).encode()).hexdigest()


def wanted_of(models: Mapping[str, ModelShape], database: Database, sources: Mapping[str, str] | None = None) -> Wanted:
    """What these models want of a database. `sources`: the file of each model."""
    tables = build_tables(models, database)
    found = sources or {}
    statements = statements_of(tables, database)
    if database == "sqlite":
        for model in models.values():
            if index := model.text_search:
                columns = tuple(tables[model.name].c.keys())
                statements += fulltext.lite_statements(index.name, model.table, index.fields, columns)
    return Wanted(
        database, (*fulltext.needed(statements), *statements), {model.table: name for name, model in models.items()},
        tuple(hint for model in models.values() for hint in _hints(model)),
        {(m.table, f.name): _NOW[database] for m in models.values() for f in m.fields.values()
         if f.managed and f.type.kind == "datetime" and not f.type.nullable},
        {m.table: m.on_drop for m in models.values() if m.on_drop != "trash"},
        frozenset((m.table, name) for m in models.values() for name in m.removed),
        {m.table: found.get(name, "") for name, m in models.items()}, frozenset(found.values()),
    )  # fmt: skip


def statements_of(tables: Mapping[str, sa.Table], database: Database) -> list[str]:
    """CREATE statements of all tables, references last where the database checks them at once."""
    dialect = dialect_of(database)

    def text(element: sa.schema.ExecutableDDLElement) -> str:
        return " ".join(str(element.compile(dialect=dialect)).split("\n")).replace("\t", "").strip()

    late = database == "postgresql"
    found = [
        text(CreateTable(table, include_foreign_key_constraints=[] if late else None)) for table in tables.values()
    ]
    for table in tables.values():
        found += [text(CreateIndex(index)) for index in sorted(table.indexes, key=lambda i: str(i.name))]
    if late:
        for table in tables.values():
            references = sorted(table.foreign_key_constraints, key=lambda c: str(c.name))
            found += [text(AddConstraint(c, isolate_from_table=False)) for c in references]
            if table.info.get(SECURED):
                found += secured(dialect.identifier_preparer.format_table(table))
    return found


def dialect_of(database: Database) -> Dialect:
    """SQLAlchemy's dialect, to compile with; no connection."""
    dialect: type[Dialect] = sqlite.dialect if database == "sqlite" else postgresql.dialect
    return dialect()


def _hints(model: ModelShape) -> list[Hint]:
    found = [Hint("table", model.table, "", model.renamed_from)] if model.renamed_from else []
    for name, shape in model.fields.items():
        if shape.renamed_from:
            found.append(Hint("column", model.table, name, shape.renamed_from))
        found += [Hint("value", model.table, name, (old,), value) for value, old in shape.renamed_values.items()]
    found += [Hint("index", model.table, i.name, i.renamed_from) for i in model.indexes if i.renamed_from]
    return found
