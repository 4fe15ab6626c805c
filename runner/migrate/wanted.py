"""The wanted side: the statements that make an empty database as the models say, and the authors' hints about it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

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


_SPACES = re.compile(r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")|\s+""")


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
class Reference:
    """The statement that adds a reference, and the table that it leads to."""

    target: str
    text: str


@dataclass(frozen=True)
class Wanted:
    """`tables` has the statements that create each table with its indexes, `references` those that add its references,
    by table and name, where they are made after all tables. `models` gives the model of each table.

    sources: the file of models of each table, by its path in the project; a table is taken for dropped only where its
    own file is read and does not name it any more.
    fills: SQL for the rows that are there when a managed field without a default is added.
    removed: columns that the author says were dropped on purpose.
    views: tables whose rename leaves a view under the old name; on the way back, names that such a view may have.
    """

    database: Database
    tables: Mapping[str, tuple[str, ...]]
    models: Mapping[str, str]
    references: Mapping[tuple[str, str], Reference] = field(default_factory=dict)
    hints: tuple[Hint, ...] = ()
    fills: Mapping[tuple[str, str], str] = field(default_factory=dict)
    on_drop: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[tuple[str, str]] = frozenset()
    views: frozenset[str] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict)
    read: frozenset[str] = frozenset()

    def statements(self, tables: Collection[str]) -> list[str]:
        """What builds these tables in an empty database; tables that they reference come along, bare of references."""
        own = [reference for (table, _), reference in self.references.items() if table in tables]
        needed = {*tables, *(reference.target for reference in own)}
        texts = [text for table, texts in self.tables.items() if table in needed for text in texts]
        return [*texts, *(reference.text for reference in own)]

    @cached_property
    def digests(self) -> dict[str, str]:
        """Names what is wanted of each table: equal exactly when its statements are."""
        texts = {table: list(texts) for table, texts in self.tables.items()}
        for (table, _), reference in self.references.items():
            texts[table].append(reference.text)
        return {table: hashlib.sha256(";\n".join(each).encode()).hexdigest() for table, each in texts.items()}


def wanted_of(models: Mapping[str, ModelShape], database: Database, sources: Mapping[str, str] | None = None) -> Wanted:
    """What these models want of a database. `sources`: the file of each model."""
    tables = build_tables(models, database)
    found = sources or {}
    return Wanted(
        database, {model.table: _creation(model, tables[name], database) for name, model in models.items()},
        {model.table: name for name, model in models.items()}, _references(tables.values(), database),
        tuple(hint for model in models.values() for hint in _hints(model)),
        {(m.table, f.name): _NOW[database] for m in models.values() for f in m.fields.values()
         if f.managed and f.type.kind == "datetime" and not f.type.nullable},
        {m.table: m.on_drop for m in models.values() if m.on_drop != "trash"},
        frozenset((m.table, name) for m in models.values() for name in m.removed),
        frozenset(m.table for m in models.values() if m.keeps_old_name and database == "postgresql"),
        {m.table: found.get(name, "") for name, m in models.items()}, frozenset(found.values()),
    )  # fmt: skip


def _creation(model: ModelShape, table: sa.Table, database: Database) -> tuple[str, ...]:
    """CREATE statements of a table, its indexes and its policy, without references where the database checks them at
    once."""
    create = CreateTable(table, include_foreign_key_constraints=[] if database == "postgresql" else None)
    found = [_text(create, database)]
    found += [_text(CreateIndex(index), database) for index in sorted(table.indexes, key=lambda index: str(index.name))]
    if database == "sqlite" and (words := model.text_search):
        found += fulltext.lite_statements(words.name, model.table, words.fields, tuple(table.c.keys()))
    if table.info.get(SECURED):
        found += secured(dialect_of(database).identifier_preparer.format_table(table))
    return (*fulltext.needed(found), *found)


def _references(tables: Iterable[sa.Table], database: Database) -> dict[tuple[str, str], Reference]:
    if database == "sqlite":
        return {}
    found = {}
    for table in tables:
        for rule in sorted(table.foreign_key_constraints, key=lambda rule: str(rule.name)):
            text = _text(AddConstraint(rule, isolate_from_table=False), database)
            found[table.name, str(rule.name)] = Reference(rule.referred_table.name, text)
    return found


def _text(element: sa.schema.ExecutableDDLElement, database: Database) -> str:
    """The statement on one line; what stands in quotes stays as it is, line breaks included."""
    text = str(element.compile(dialect=dialect_of(database)))
    return _SPACES.sub(lambda found: found["text"] or " ", text).strip()


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
