"""Reads an SQLite file into a snapshot, and writes the statements that create what a snapshot holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.migrate.connection import Live
from runner.migrate.snapshot import Facts, Key, Snapshot, is_named
from runner.migrate.sqltext import parse_table, quoted, spelled, tokens, unquoted
from runner.sql import fulltext

WORDS = "words"
"""How the definition of an index over words begins; it is a virtual table and its triggers."""
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
    others = ("CREATE VIRTUAL", *_inner(sql for *_, sql in rows))
    for kind, name, table, sql in rows:
        if tables is not None and table not in tables:
            continue
        if kind == "table" and not sql.startswith(others):
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
    items |= {("index", table, name): words for table, name, words in _word_indexes(rows) if table in order}
    return Snapshot(items, order)


def _word_indexes(rows: Sequence[tuple[str, str, str, str]]) -> Iterator[tuple[str, str, Facts]]:
    """The tables of words, each with its triggers, as indexes; `broken` when a part is not as it should be."""
    texts = {name: sql for _, name, _, sql in rows}
    owners = {name: table for kind, name, table, _ in rows if kind == "trigger"}
    for kind, name, _, sql in rows:
        fields = fulltext.lite_fields(sql) if kind == "table" else None
        owner = next((owners[n] for n in fulltext.lite_triggers(name) if n in owners), None)
        if fields is None or owner is None:
            continue
        columns = tuple(parse_table(texts[owner]).columns)
        want = fulltext.lite_statements(name, owner, fields, columns)[:-1]
        have = (texts.get(n, "") for n in (name, *fulltext.lite_triggers(name)))
        is_whole = all(spelled(tokens(a)) == spelled(tokens(b)) for a, b in zip(have, want, strict=True))
        listed = ", ".join(map(quoted, fields))
        yield owner, name, {"definition": f"{WORDS}({listed})" + ("" if is_whole else " broken")}


async def attached(live: Live) -> list[Attached]:
    """The triggers and views of the file, by name, without those that are part of an index."""
    sql = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('trigger', 'view', 'table') ORDER BY name"
    found = [Attached(*row) for row in await live.fetch(sql)]
    words = [a.name for a in found if a.kind == "table" and fulltext.lite_fields(a.sql) is not None]
    parts = {trigger for name in words for trigger in fulltext.lite_triggers(name)}
    return [a for a in found if a.kind != "table" and a.name not in parts]


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


def create_index(table: str, name: str, facts: Facts, columns: Collection[str]) -> list[str]:
    """The statements that build an index of a table with these columns."""
    if facts["definition"].startswith(WORDS):
        listed = facts["definition"].removesuffix(" broken")
        names = [unquoted(token) for token in tokens(listed) if token.kind in ("word", "name")]
        return fulltext.lite_statements(name, table, names[1:], tuple(columns))
    words = "CREATE UNIQUE INDEX" if "unique" in facts else "CREATE INDEX"
    return [f"{words} {quoted(name)} ON {quoted(table)} {facts['definition']}"]


def drop_index(name: str, facts: Facts) -> list[str]:
    """The statements that take an index away."""
    return fulltext.lite_drops(name) if facts["definition"].startswith(WORDS) else [f"DROP INDEX {quoted(name)}"]


async def copy_statements(live: Live) -> list[str]:
    """The statements that create all that the file holds, without its rows."""
    rows = await live.fetch(
        f"SELECT sql FROM sqlite_master WHERE {_USERS} "
        "ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid"
    )
    inner = _inner([sql for (sql,) in rows])
    return [sql for (sql,) in rows if not sql.startswith(inner)]


def _inner(statements: Iterable[str]) -> tuple[str, ...]:
    """How the statements begin that create what virtual tables keep their data in; those create it themselves."""
    virtual = [sql.split("(")[0].split()[3].strip('"') for sql in statements if sql.startswith("CREATE VIRTUAL")]
    return tuple(f"CREATE TABLE '{name}_" for name in virtual)
