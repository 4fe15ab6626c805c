"""Reads a PostgreSQL schema into a snapshot, and writes the statements that create what a snapshot holds.

Every text comes from the server itself (`format_type`, `pg_get_expr`, `pg_get_constraintdef`, `pg_get_indexdef`), so
that both sides of a comparison are spelled by one hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable

from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

from runner.dialects.row_security import POLICY, secured, unsecured
from runner.migrate.connection import Live
from runner.migrate.snapshot import OWN, Facts, Key, Snapshot
from runner.sql import fulltext
from schemas.names import cut

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
  CASE WHEN a.attcollation <> t.typcollation
    THEN (SELECT quote_ident(collname) FROM pg_collation WHERE oid = a.attcollation) END,
  EXISTS (SELECT FROM pg_depend s JOIN pg_class q ON q.oid = s.objid AND q.relkind = 'S'
    WHERE s.refobjid = c.oid AND s.refobjsubid = a.attnum AND s.deptype = 'a'),
  CASE WHEN NOT n.convalidated THEN n.conname END
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_constraint n ON n.conrelid = c.oid AND n.contype = 'n' AND n.conkey[1] = a.attnum
WHERE c.relnamespace = {schema} AND c.relkind IN ('r', 'p'){tables}
ORDER BY c.relname, a.attnum"""
_CONSTRAINTS = """
SELECT c.relname, n.conname, n.contype::text, pg_get_constraintdef(n.oid), n.convalidated,
  (SELECT json_agg(a.attname ORDER BY k.i) FROM unnest(n.conkey) WITH ORDINALITY k(num, i)
    JOIN pg_attribute a ON a.attrelid = n.conrelid AND a.attnum = k.num)::text,
  p.relname,
  (SELECT json_agg(a.attname ORDER BY k.i) FROM unnest(n.confkey) WITH ORDINALITY k(num, i)
    JOIN pg_attribute a ON a.attrelid = n.confrelid AND a.attnum = k.num)::text
FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid LEFT JOIN pg_class p ON p.oid = n.confrelid
WHERE c.relnamespace = {schema} AND c.relkind IN ('r', 'p') AND n.contype IN ('p', 'u', 'f', 'c', 'x'){tables}"""
_INDEXES = """
SELECT c.relname, i.relname, x.indisunique, x.indisvalid, pg_get_indexdef(x.indexrelid)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
WHERE c.relnamespace = {schema} AND c.relkind IN ('r', 'p'){tables}
  AND NOT EXISTS (SELECT FROM pg_constraint n WHERE n.conindid = x.indexrelid AND n.contype IN ('p', 'u', 'x'))"""
_TABLES = """
SELECT c.relname, obj_description(c.oid, 'pg_class'),
  CASE WHEN NOT c.relrowsecurity THEN 'off' WHEN c.relforcerowsecurity THEN 'forced' ELSE 'not for its owner' END,
  concat_ws(' ', 'AS', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, 'FOR',
    CASE p.polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
      ELSE 'DELETE' END, 'TO',
    (SELECT string_agg(CASE r.id WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r.id)) END, ', ')
      FROM unnest(p.polroles) r(id)),
    'USING (' || pg_get_expr(p.polqual, c.oid) || ')', 'WITH CHECK (' || pg_get_expr(p.polwithcheck, c.oid) || ')'),
  p.oid IS NOT NULL
FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = '{policy}'
WHERE c.relnamespace = {schema} AND c.relkind IN ('r', 'p'){tables}"""


async def read(live: Live, tables: Collection[str] | None = None) -> Snapshot:
    """The tables of the schema; all of them, or those that are named."""
    names = "" if tables is None else f" AND c.relname = ANY ({literal(_array(tables))}::text[])"
    oid = "pg_my_temp_schema()" if live.schema == "pg_temp" else f"{literal(quoted(live.schema))}::regnamespace"
    fill = {"schema": oid, "tables": names, "policy": POLICY}
    items: dict[Key, Facts] = {}
    order: dict[str, list[str]] = {}
    for table, comment, state, policy, is_secured in await live.fetch(_TABLES.format(**fill)):
        rows = {"rows": state, "policy": " ".join(policy.split())} if is_secured else {}
        items["table", table, ""] = _facts(comment=comment, **rows)
    for row in await live.fetch(_COLUMNS.format(**fill)):
        items["column", row[0], row[1]] = _column(*row[2:])
        order.setdefault(row[0], []).append(row[1])
    for table, name, kind, text, is_valid, columns, target, target_columns in await live.fetch(
        _CONSTRAINTS.format(**fill)
    ):
        items["constraint", table, name] = _facts(
            kind=kind, definition=settled(text.removesuffix(" NOT VALID")), valid="yes" if is_valid else "no",
            columns=_listed(columns), target=target, target_columns=_listed(target_columns),
        )  # fmt: skip
    for table, name, is_unique, is_valid, text in await live.fetch(_INDEXES.format(**fill)):
        items["index", table, name] = _facts(
            definition=settled(text.partition(" USING ")[2].replace(f"pg_temp.{fulltext.FUNCTION}", fulltext.FUNCTION)),
            unique="yes" if is_unique else None,
            valid="yes" if is_valid else "no",
        )  # fmt: skip
    return Snapshot(items, {table: tuple(columns) for table, columns in order.items()})


async def data_files(live: Live) -> dict[int, tuple[str, int]]:
    """The name and the file of the rows of each table of the schema, by its number; none on another database. A
    statement that gives a table another file has rewritten it."""
    if live.database == "sqlite":
        return {}
    oid = "pg_my_temp_schema()" if live.schema == "pg_temp" else f"{literal(quoted(live.schema))}::regnamespace"
    sql = f"SELECT oid, relname, relfilenode FROM pg_class WHERE relnamespace = {oid} AND relkind = 'r'"
    return {int(number): (str(name), int(file)) for number, name, file in await live.fetch(sql)}


def _column(
    kind: str, is_required: bool, default: str | None, identity: str, generated: str, collation: str | None,
    owns_sequence: bool, unproved: str | None,
) -> Facts:  # fmt: skip
    if default is not None and owns_sequence and default.startswith("nextval("):
        # the sequence's name is no part of the comparison: a copied table owns one of another name
        default = "nextval(owned)"
    null = "yes" if not is_required else "unproved" if unproved else "no"
    return _facts(
        type=kind, null=null, default=None if generated else default, identity=identity or None, rule=unproved,
        generated=f"{generated} {default}" if generated else None, collation=collation,
    )  # fmt: skip


def _facts(**facts: str | None) -> Facts:
    return {name: value for name, value in facts.items() if value is not None}


def _listed(text: str | None) -> str | None:
    return None if text is None else ", ".join(quoted(name) for name in json.loads(text))


def _array(names: Collection[str]) -> str:
    return "{" + ",".join('"' + name.replace('"', '\\"') + '"' for name in sorted(names)) + "}"


def column_text(name: str, facts: Facts) -> str:
    """A column as CREATE TABLE and ADD COLUMN take it."""
    parts = [quoted(name), facts["type"]]
    if "collation" in facts:
        parts.append(f"COLLATE {facts['collation']}")
    if "generated" in facts:
        kind, _, expression = facts["generated"].partition(" ")
        parts.append(f"GENERATED ALWAYS AS ({expression}) {'STORED' if kind == 's' else 'VIRTUAL'}")
    if "identity" in facts:
        parts.append(f"GENERATED {'ALWAYS' if facts['identity'] == 'a' else 'BY DEFAULT'} AS IDENTITY")
    if "default" in facts and facts["default"] != "nextval(owned)":
        parts.append(f"DEFAULT {facts['default']}")
    if facts["null"] == "no":
        parts.append("NOT NULL")
    return " ".join(parts)


def create_table(snapshot: Snapshot, table: str) -> list[str]:
    """The statements that create a table with its keys, checks and indexes, references left out."""
    parts = [column_text(name, facts) for name, facts in snapshot.of("column", table).items()]
    late: list[str] = []
    for name, facts in snapshot.of("constraint", table).items():
        if facts["kind"] == "f":
            continue
        text = f"CONSTRAINT {quoted(name)} {facts['definition']}"
        if facts["valid"] == "yes":
            parts.append(text)
        else:
            late.append(f"ALTER TABLE {quoted(table)} ADD {text} NOT VALID")
    indexes = [create_index(table, name, facts) for name, facts in snapshot.of("index", table).items()]
    created = [f"CREATE TABLE {quoted(table)} ({', '.join(parts)})", *late, *indexes]
    return created + row_security(table, {}, snapshot.items["table", table, ""])


def row_security(table: str, before: Facts, after: Facts) -> list[str]:
    """The statements that bring the policy of a table from one state to another."""
    name = quoted(table)
    statements = unsecured(name) if "policy" in before else []
    if "policy" in after:
        statements += secured(name, after["policy"])
        if after["rows"] != "forced":
            statements.append(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
        if after["rows"] == "off":
            statements.append(f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY")
    return statements


def add_constraint(table: str, name: str, facts: Facts, *, validated: bool = True) -> str:
    """The statement that adds a constraint; unless `validated`, without looking at the rows that are there."""
    end = "" if validated else " NOT VALID"
    return f"ALTER TABLE {quoted(table)} ADD CONSTRAINT {quoted(name)} {facts['definition']}{end}"


def create_index(table: str, name: str, facts: Facts, *, concurrently: bool = False) -> str:
    """The statement that builds an index."""
    words = "CREATE UNIQUE INDEX" if "unique" in facts else "CREATE INDEX"
    if concurrently:
        words += " CONCURRENTLY"
    return f"{words} {quoted(name)} ON {quoted(table)} USING {facts['definition']}"


def words_needed(facts: Iterable[Facts]) -> list[str]:
    """The statement that makes the function of indexes over words, where one of these items is such an index."""
    return fulltext.needed([each.get("definition", "") for each in facts])


def copy_statements(snapshot: Snapshot) -> list[str]:
    """The statements that create everything a snapshot holds, references last."""
    statements = words_needed(snapshot.items.values())
    for table in sorted(snapshot.tables):
        statements += create_table(snapshot, table)
        for name, facts in snapshot.of("column", table).items():
            if facts.get("default") == "nextval(owned)":
                sequence = quoted(cut(f"{OWN}{table}_{name}_seq"))
                statements += [
                    f"CREATE SEQUENCE {sequence} OWNED BY {quoted(table)}.{quoted(name)}",
                    f"ALTER TABLE {quoted(table)} ALTER {quoted(name)} SET DEFAULT nextval({literal(sequence)})",
                ]
            if facts["null"] == "unproved":
                rule = f"CONSTRAINT {quoted(facts['rule'])} NOT NULL {quoted(name)} NOT VALID"
                statements.append(f"ALTER TABLE {quoted(table)} ADD {rule}")
    for table in sorted(snapshot.tables):
        for name, facts in snapshot.of("constraint", table).items():
            if facts["kind"] == "f" and facts["target"] in snapshot.tables:
                statements.append(add_constraint(table, name, facts, validated=facts["valid"] == "yes"))
    return statements


def quoted(name: str) -> str:
    """A name as SQL takes it; quotes only where they are needed."""
    is_plain = name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit() and name == name.lower()
    return name if is_plain and name not in RESERVED_WORDS else '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"


def settled(text: str) -> str:
    """The text as the server spells it once it has read its own spelling.

    It prints `IN` over varchars as one cast of an array, and reads that back as an array of casts: a copied table would
    look different from its original.

    >>> settled("= ANY ((ARRAY['a'::character varying, b])::text[])")
    "= ANY (ARRAY[('a'::character varying)::text, (b)::text])"
    """
    start = text.find("(ARRAY[")
    while start >= 0:
        parts, end = _elements(text, start + len("(ARRAY["))
        cast = re.match(r"\)::([a-z][\w ]*(?:\(\d+\))?)\[\]", text[end + 1 :])
        if cast:
            inside = ", ".join(f"({part})::{cast[1]}" for part in parts)
            text = f"{text[:start]}ARRAY[{inside}]{text[end + 1 + cast.end() :]}"
        start = text.find("(ARRAY[", start + 1)
    return text


def _elements(text: str, start: int) -> tuple[list[str], int]:
    """What stands between brackets from `start` on, cut at its own commas, and where the closing bracket is."""
    parts, depth, begin, is_text = [], 0, start, False
    for number in range(start, len(text)):
        sign = text[number]
        if sign == "'":
            is_text = not is_text
        elif is_text:
            continue
        elif sign in "([":
            depth += 1
        elif sign in ")]" and depth:
            depth -= 1
        elif sign == "," and not depth:
            parts.append(text[begin:number])
            begin = number + 2
        elif sign == "]":
            return [*parts, text[begin:number]], number
    raise AssertionError(f"unbalanced brackets in {text!r}")
