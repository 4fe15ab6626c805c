"""Hand-written steps (`migrations/*.yaml`): carried out before the difference is made, and proved like all others."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn

from runner.catalog import table_name
from runner.dialects.types import column_type
from runner.migrate import postgresql, sqltext
from runner.migrate.difference import Change
from runner.migrate.recipes import Situation
from runner.migrate.rules_postgresql import key_of
from runner.migrate.step import Backup, Batch, Mode, Probe, Step
from runner.migrate.wanted import dialect_of
from runner.sql.filters import Database
from schemas.migrations import AddColumn, Backfill, SqlByDatabase, WrittenMigration, WrittenStep


@dataclass(frozen=True, slots=True)
class Written:
    """One file of steps. `digest` tells whether it is still the file that was carried out."""

    name: str
    digest: str
    declared: WrittenMigration = field(repr=False)

    @property
    def removed(self) -> frozenset[tuple[str, str]]:
        """The columns that are dropped on purpose."""
        drops = [step.drop_column for step in self.declared.steps if step.drop_column is not None]
        return frozenset((table_name(drop.model), drop.field) for drop in drops)


def written_of(declared: WrittenMigration, text: str) -> Written:
    """The file as the planner takes it."""
    return Written(declared.migration, "sha256:" + hashlib.sha256(text.encode()).hexdigest(), declared)


def written_steps(written: Written, situation: Situation) -> list[Step]:
    """The steps of a file, in their order."""
    added: set[tuple[str, str]] = set()
    return [step for number, each in enumerate(written.declared.steps, 1)
            for step in _steps(written.name, number, each, situation, added)]  # fmt: skip


def _steps(
    name: str, number: int, step: WrittenStep, situation: Situation, added: set[tuple[str, str]]
) -> Iterator[Step]:
    if step.add_column is not None:
        added.add((table_name(step.add_column.model), step.add_column.field))
        yield _add_column(step.add_column, situation)
    elif step.backfill is not None:
        yield from _backfill(step.backfill, situation, added)
    elif step.sql is not None:
        statement = _statement(step.sql, situation.database)
        if statement:
            yield _sql(f"{name}.{number}", statement, step, situation)


def _add_column(step: AddColumn, situation: Situation) -> Step:
    change = Change("add_column", table_name(step.model), step.field)
    column: sa.Column[object] = sa.Column(step.field, column_type(step.type.value_type()), nullable=True)
    text = str(CreateColumn(column).compile(dialect=dialect_of(situation.database)))
    table = _quote(situation.database, change.table)
    undo = f"ALTER TABLE {table} DROP COLUMN {_quote(situation.database, step.field)}"
    return situation.step(
        change, "add_column", "expand", 15, "brief", [f"ALTER TABLE {table} ADD COLUMN {text}"], [undo]
    )


def _backfill(step: Backfill, situation: Situation, added: set[tuple[str, str]]) -> Iterator[Step]:
    table, database = table_name(step.model), situation.database
    quoted = _quote(database, table)
    assignments = ", ".join(f"{_quote(database, name)} = {text}" for name, text in step.set.items())
    change = Change("backfill", table, "+".join(step.set))
    where = step.where if database == "postgresql" or step.where != "true" else "1"
    sql = f"UPDATE {quoted} SET {assignments} WHERE ({where})"
    key = key_of(situation, table)
    kept = [name for name in step.set if (table, name) not in added]
    if kept:
        shadow = situation.shadow(table, "_".join(step.set))
        columns = ", ".join(_quote(database, name) for name in dict.fromkeys((*key, *kept)))
        backups = [Backup("shadow", table, name, shadow) for name in kept]
        copy = f"CREATE TABLE {_quote(database, shadow)} AS SELECT {columns} FROM {quoted}"
        yield situation.step(
            change, "backfill", "backfill", 15, "alone", [copy], label="keep values of", backups=backups
        )
    filled = situation.step(change, "backfill", "backfill", 15, "batches" if key else "alone", [sql])
    if database == "sqlite":
        yield replace(filled, mode="brief")
    elif key:
        yield replace(filled, batch=Batch(table, key, assignments, where, step.batch_size, step.pause_ms))
    else:
        yield filled


def _sql(label: str, statement: str, step: WrittenStep, situation: Situation) -> Step:
    down = _statement(step.down, situation.database)
    change = Change("sql", label)
    is_outside = not step.transaction or bool(re.search(r"\bCONCURRENTLY\b", statement, re.IGNORECASE))
    probes = [Probe(step.probe.sql, step.probe.says, "", step.probe.sql)] if step.probe else []
    mode: Mode = "brief" if situation.database == "sqlite" else "outside" if is_outside else "alone"
    found = situation.step(
        change, "sql_proved" if down else "sql", "expand", 15, mode, [statement], [down] if down else [],
        probes=probes, says=f"written by hand: {statement[:60]}", locks={},
    )  # fmt: skip
    return replace(found, tables=())


def _statement(sql: str | SqlByDatabase | None, database: Database) -> str:
    if isinstance(sql, SqlByDatabase):
        sql = sql.sqlite if database == "sqlite" else sql.postgresql
    return (sql or "").strip().rstrip(";")


def _quote(database: Database, name: str) -> str:
    return sqltext.quoted(name) if database == "sqlite" else postgresql.quoted(name)
