"""Reads an SQLite file into a snapshot, and writes the statements that create what a snapshot holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from runner.migrate.connection import Live
from runner.migrate.snapshot import Facts, Key, Snapshot, is_named
from runner.migrate.sqltext import parse_table, quoted, spelled, tokens

AUDIT = "dfrun_audit_"
"""Triggers that keep the trail of changes; they are made anew for the table as it is then."""
_USERS = "sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


@dataclass(frozen=True, slots=True)
class Attached:
    """A trigger or a view as its file keeps it: what a rebuilt table must get back."""

    kind: str
    name: str
    table: str
    sql: str

    def mentions(self, name: str) -> bool:
        """Whether the text names this column or table."""
        return any(token.kind in ("name", "word") and token.text == quoted(name) for token in tokens(self.sql))


async def read(live: Live, tables: Collection[str] | None = None) -> Snapshot:
    """The tables of the file; all of them, or those that are named. Virtual tables are no tables here."""
    items: dict[Key, Facts] = {}
    order: dict[str, tuple[str, ...]] = {}
    rows = await live.fetch(f"SELECT type, name, tbl_name, sql FROM sqlite_master WHERE {_USERS}")
    for kind, name, table, sql in rows:
        if tables is not None and table not in tables:
            continue
        if kind == "table" and not sql.upper().startswith("CREATE VIRTUAL"):
            text = parse_table(sql)
            items["table", name, ""] = {"options": text.options} if text.options else {}
            items |= {("column", name, column): facts for column, facts in text.columns.items()}
            items |= {("constraint", name, label): facts for label, facts in text.constraints.items()}
            order[name] = tuple(text.columns)
    for kind, name, table, sql in rows:
        if kind == "index" and table in order:
            parts = tokens(sql)
            start = next(i for i, token in enumerate(parts) if token.text == "(")
            facts = {"definition": spelled(parts[start:])}
            items["index", table, name] = facts | ({"unique": "yes"} if parts[1].word == "unique" else {})
    return Snapshot(items, order)


async def attached(live: Live) -> list[Attached]:
    """The triggers and views of the file, by name."""
    sql = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY name"
    return [Attached(*row) for row in await live.fetch(sql)]


def column_text(name: str, facts: Facts, rules: Mapping[str, Facts] | None = None) -> str:
    """A column as CREATE TABLE and ADD COLUMN take it; `rules` are constraints that stand at the column."""
    parts = [quoted(name), facts["type"]]
    if "default" in facts:
        parts.append(f"DEFAULT {facts['default']}")
    if facts["null"] == "no":
        parts.append("NOT NULL")
    if "collation" in facts:
        parts.append(f"COLLATE {facts['collation']}")
    if "generated" in facts:
        kind, _, expression = facts["generated"].partition(" ")
        parts.append(f"GENERATED ALWAYS AS ({expression}) {'STORED' if kind == 's' else 'VIRTUAL'}")
    for label, rule in (rules or {}).items():
        text = rule["definition"]
        if rule["kind"] == "f":
            text = text[text.index(" REFERENCES ") + 1 :]
        parts.append(f"CONSTRAINT {quoted(label)} {text}" if is_named(label) else text)
    return " ".join(parts)


def create_table(snapshot: Snapshot, table: str, name: str | None = None) -> str:
    """The CREATE TABLE of a table with all its constraints; `name`: under another name."""
    parts, late = [], []
    counted = ""
    for label, facts in snapshot.of("constraint", table).items():
        if facts["kind"] == "p" and facts["definition"].endswith(" AUTOINCREMENT"):
            counted = facts["columns"]  # only a column itself can say this
            continue
        late.append(f"CONSTRAINT {quoted(label)} {facts['definition']}" if is_named(label) else facts["definition"])
    for column, facts in snapshot.of("column", table).items():
        text = column_text(column, facts)
        parts.append(f"{text} PRIMARY KEY AUTOINCREMENT" if quoted(column) == counted else text)
    options = snapshot.items["table", table, ""].get("options", "")
    return f"CREATE TABLE {quoted(name or table)} ({', '.join([*parts, *late])}) {options}".rstrip()


def create_index(table: str, name: str, facts: Facts) -> str:
    """The statement that builds an index."""
    words = "CREATE UNIQUE INDEX" if "unique" in facts else "CREATE INDEX"
    return f"{words} {quoted(name)} ON {quoted(table)} {facts['definition']}"


async def copy_statements(live: Live) -> list[str]:
    """The statements that create all that the file holds, without its rows."""
    rows = await live.fetch(
        f"SELECT sql FROM sqlite_master WHERE {_USERS} "
        "ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid"
    )
    virtual = [sql.split("(")[0].split()[3].strip('"') for (sql,) in rows if sql.upper().startswith("CREATE VIRTUAL")]
    # what a virtual table keeps its data in is created with it
    inner = tuple(f"CREATE TABLE '{name}_" for name in virtual)
    return [sql for (sql,) in rows if not (inner and sql.startswith(inner))]
