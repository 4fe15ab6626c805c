"""The triggers that record every changed row, one set a table. On PostgreSQL they fire once a statement and write all
its rows at once, COPY and cascades included; SQLite has them for each row.

A row's salt must tell nothing of another's, and one strong random number a row is half the cost of all: on PostgreSQL
they are made from one for each statement, which is kept nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.audit.trail import METADATA, OUTSIDE
from runner.features.encryption import stored_model
from schemas.names import cut
from schemas.shapes import ModelShape

_PREFIX = "dfrun_audit_"
_EVENTS = ("insert", "update", "delete")


@dataclass(frozen=True, slots=True)
class Trigger:
    """One table's triggers: `names` as the database knows them, and the statements that make them."""

    table: str
    names: tuple[str, ...]
    statements: tuple[str, ...]


async def untracked_models(
    connection: AsyncConnection, models: Mapping[str, ModelShape], tables: Mapping[str, sa.Table]
) -> list[str]:
    """The models with `audit_log` whose changes the database does not record as it should."""
    wanted = _wanted(connection, models, tables)
    there = await _there(connection) if wanted else {}
    return [name for name, trigger in wanted.items() if there.get(trigger.table, set()) != set(trigger.names)]


async def track(
    connection: AsyncConnection, models: Mapping[str, ModelShape], tables: Mapping[str, sa.Table], names: Sequence[str]
) -> None:
    """Make the tables of the trail, and the triggers of these models; older ones of theirs go."""
    if not names:
        return
    await connection.run_sync(METADATA.create_all)
    there = await _there(connection)
    for name, trigger in _wanted(connection, models, tables).items():
        if name not in names:
            continue
        for old in there.get(trigger.table, set()):
            on = f" ON {_quoted(trigger.table)}" if connection.dialect.name == "postgresql" else ""
            await connection.exec_driver_sql(f"DROP TRIGGER {_quoted(old)}{on}")
        for statement in trigger.statements:
            await connection.exec_driver_sql(statement)


def _wanted(
    connection: AsyncConnection, models: Mapping[str, ModelShape], tables: Mapping[str, sa.Table]
) -> dict[str, Trigger]:
    make = _postgresql if connection.dialect.name == "postgresql" else _sqlite
    return {
        name: make(stored_model(model), tables[name]) for name, model in models.items() if "audit_log" in model.features
    }


async def _there(connection: AsyncConnection) -> dict[str, set[str]]:
    if connection.dialect.name == "postgresql":
        text = (
            "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            " WHERE starts_with(t.tgname, 'dfrun_audit_') AND pg_table_is_visible(c.oid) AND t.tgenabled <> 'D'"
        )
    else:
        text = "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger' AND name GLOB 'dfrun_audit_*'"
    found: dict[str, set[str]] = {}
    for row in (await connection.exec_driver_sql(text)).all():
        table, name = map(str, row)
        found.setdefault(table, set()).add(name)
    return found


def _postgresql(model: ModelShape, table: sa.Table) -> Trigger:
    keys = model.primary_key
    key = f"to_json(r.{_quoted(keys[0])})" if len(keys) == 1 else _call("json_build_array", keys)
    same = " AND ".join(f"o.{_quoted(name)} = r.{_quoted(name)}" for name in _identity(model))
    into = "INSERT INTO dfrun_audit_row (entry, model, key, action, salt, before, after) SELECT"
    start = f"{into} now_entry, {_text(model.name)}, {key}::text, lower(TG_OP), md5(secret || {key}),"
    body = f"""
DECLARE now_entry text := coalesce(nullif(current_setting('dfrun.audit', true), ''), '{OUTSIDE}');
  secret text := gen_random_uuid()::text || gen_random_uuid()::text;
BEGIN
  IF TG_OP = 'INSERT' THEN {start} NULL, row_to_json(r)::text FROM new_rows r;
  ELSIF TG_OP = 'DELETE' THEN {start} row_to_json(r)::text, NULL FROM old_rows r;
  ELSE {start} row_to_json(o)::text, row_to_json(r)::text FROM new_rows r JOIN old_rows o ON {same};
  END IF;
  RETURN NULL;
END"""
    plain = cut(f"{_PREFIX}{table.name}")
    # triggers that were made when long names were cut without a hash call a function that another table may own
    told = body if plain.endswith(table.name) else plain + body
    label, function = hashlib.sha256(told.encode()).hexdigest()[:8], _quoted(plain)
    statements = [f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $dfrun${body}$dfrun$"]
    seen = {"insert": "NEW TABLE AS new_rows", "delete": "OLD TABLE AS old_rows"}
    seen["update"] = f"{seen['delete']} {seen['insert']}"
    names = []
    for event in _EVENTS:
        name = f"{_PREFIX}{event}_{label}"
        names.append(name)
        statements.append(
            f"CREATE TRIGGER {_quoted(name)} AFTER {event.upper()} ON {_quoted(table.name)}"
            f" REFERENCING {seen[event]} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
    return Trigger(table.name, tuple(names), tuple(statements))


def _sqlite(model: ModelShape, table: sa.Table) -> Trigger:
    keys = model.primary_key
    names, statements = [], []
    for event in _EVENTS:
        row = "old" if event == "delete" else "new"
        key = f"json_quote({row}.{_quoted(keys[0])})" if len(keys) == 1 else _call("json_array", keys, row)
        before = "NULL" if event == "insert" else _json_row(model, "old")
        after = "NULL" if event == "delete" else _json_row(model, "new")
        body = (
            "INSERT INTO dfrun_audit_row (entry, model, key, action, salt, before, after) VALUES ("
            f"coalesce((SELECT entry FROM dfrun_audit_now), '{OUTSIDE}'), {_text(model.name)}, {key}, '{event}',"
            f" hex(randomblob(16)), {before}, {after})"
        )
        label = hashlib.sha256(body.encode()).hexdigest()[:8]
        name = f"{_PREFIX}{table.name}_{event}_{label}"
        names.append(name)
        statements.append(
            f"CREATE TRIGGER {_quoted(name)} AFTER {event.upper()} ON {_quoted(table.name)} BEGIN {body}; END"
        )
    return Trigger(table.name, tuple(names), tuple(statements))


def _json_row(model: ModelShape, row: str) -> str:
    """A row as a JSON object; SQLite has no blobs in JSON, and at most 127 arguments in a call."""
    pairs = []
    for name, field in model.fields.items():
        column = f"{row}.{_quoted(name)}"
        value = {
            "json": f"json({column})",
            "list": f"json({column})",
            "bytes": f"iif({column} IS NULL, NULL, hex({column}))",
        }
        pairs.append(f"{_text(name)}, {value.get(field.type.kind, column)}")
    parts = [f"json_object({', '.join(pairs[start : start + 50])})" for start in range(0, len(pairs), 50)]
    whole = parts[0]
    for part in parts[1:]:
        whole = f"substr({whole}, 1, length({whole}) - 1) || ',' || substr({part}, 2)"
    return whole


def _identity(model: ModelShape) -> tuple[str, ...]:
    return ("tenant_id", *model.primary_key) if model.is_tenanted else model.primary_key


def _call(function: str, names: Sequence[str], row: str = "r") -> str:
    return f"{function}({', '.join(f'{row}.{_quoted(name)}' for name in names)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
