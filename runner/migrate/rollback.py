"""Taking a migration back: the way from the database as it is now to the state that history recorded before it, with
what the trash and the backups still have, and with its losses named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from runner.errors import Problem, TablesError
from runner.migrate import history, postgresql, sqltext
from runner.migrate.casts import cast
from runner.migrate.connection import Live
from runner.migrate.conversions import kind_of
from runner.migrate.difference import Change
from runner.migrate.history import Meta, Migration, Recorded
from runner.migrate.plan import MigrationPlan
from runner.migrate.recipes import Situation
from runner.migrate.renames import inverse
from runner.migrate.rules_postgresql import key_of
from runner.migrate.snapshot import Facts, Snapshot
from runner.migrate.step import Backup, Step, step_from
from runner.migrate.wanted import Wanted

Reversible = Literal["exact", "with_loss", "no"]


@dataclass(frozen=True, slots=True)
class Target:
    """The state to go back to, and the migrations that are taken back, oldest first."""

    migrations: tuple[Migration, ...]
    want: Snapshot
    meta: Meta
    wanted: Wanted
    backups: tuple[Backup, ...]
    undos: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Loss:
    """One step of a rollback: whether everything is as before afterwards, and if not, what is gone."""

    step: str
    reversible: Reversible
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback that was thought through and not done yet."""

    target: Target
    plan: MigrationPlan
    steps: tuple[Loss, ...]

    @property
    def fully_reversible(self) -> bool:
        """Whether nothing at all is lost."""
        return all(step.reversible == "exact" for step in self.steps)

    @property
    def data_loss_warning(self) -> str:
        """What is lost, "" for nothing."""
        return "; ".join(step.lost for step in self.steps if step.lost)


async def find_target(live: Live, recorded: Recorded, number: int | None) -> Target:
    """The state before a migration; before the last one without a number. Raises `TablesError` DF619."""
    done = [m for m in recorded.migrations if m.status in (*history.DONE, *history.UNFINISHED)]
    chosen = next((m for m in done if m.id == number), None) if number else (done[-1] if done else None)
    if chosen is None or chosen.kind == "baseline":
        what = f"there is no migration {number} to take back" if number else "there is no migration to take back"
        raise TablesError(Problem("DF619", what, None, "", "dfrun migrate history"))
    taken = [await history.load(live, m.id) for m in done if m.id >= chosen.id]
    earlier = [m for m in done if m.id < chosen.id]
    meta = earlier[-1].meta if earlier else Meta()
    new = [hint for hint in recorded.meta.hints if hint not in meta.hints]
    want = taken[0].before
    wanted = Wanted(
        live.database,
        {},
        {table: table for table in want.tables},
        hints=tuple(inverse(new)),
        sources=meta.sources,
        views=frozenset(_kept_names(taken)),
    )
    backups = tuple(b for m in taken for b in m.backups)
    # what was there before need not be what the models wanted then
    meta = replace(meta, digests={}, takes_back=tuple(m.id for m in taken))
    return Target(tuple(taken), want, meta, wanted, backups, tuple(_undos(taken)))


def _kept_names(taken: Sequence[Migration]) -> Iterator[str]:
    """The old names that a view may still have."""
    for migration in taken:
        for body in migration.steps:
            step = step_from(body)
            if step.parts[0].rule == "rename_table_kept":
                yield next(iter(step.locks))


def _undos(taken: Sequence[Migration]) -> list[Step]:
    """The `down` statements of hand-written steps, the newest first."""
    found = []
    for migration in reversed(taken):
        for body in reversed(migration.steps):
            step = step_from(body)
            if step.parts[0].rule == "sql_proved" and step.undo:
                found.append(
                    replace(step, op=f"undo {step.op}", sql=step.undo, undo=step.sql, probes=(), rank=5, after="")
                )
    return found


def restore_steps(backups: Sequence[Backup], changes: Sequence[Change], s: Situation) -> list[Step]:
    """Values before a change of type or a backfill, put back where the row still has what the change made of them."""
    typed = {(c.table, c.name): c for c in changes if c.op == "change_type"}
    found: list[Step] = []
    seen: set[tuple[str, str]] = set()
    for backup in backups:
        at = (backup.table, backup.name)
        if backup.kind != "shadow" or at in seen or backup.kept not in s.live.tables:
            continue
        seen.add(at)
        if ("column", *at) not in s.want.items or ("column", *at) not in s.have.items:
            continue
        if not _keys(backup, s):
            continue  # nobody can say which value is whose: `losses` tells it
        change = Change("restore_values", *at)
        sql = _put_back(backup, typed.get(at), s)
        found.append(s.step(change, "restore_values", "contract", 51, "alone", [sql]))
    return found


def _keys(backup: Backup, s: Situation) -> list[str]:
    """The columns by which a kept value finds its row: the key, where it was kept beside the value."""
    kept = s.live.of("column", backup.kept)
    key = key_of(s, backup.table)
    return [name for name in key if name in kept and name != backup.name] if set(key) <= kept.keys() else []


def _put_back(backup: Backup, change: Change | None, s: Situation) -> str:
    quote = sqltext.quoted if s.database == "sqlite" else postgresql.quoted
    table, kept, name = quote(backup.table), quote(backup.kept), quote(backup.name)
    same = " AND ".join(f"t.{quote(key)} = b.{quote(key)}" for key in _keys(backup, s))
    differs = "IS NOT" if s.database == "sqlite" else "IS DISTINCT FROM"
    where = f"{same} AND t.{name} {differs} b.{name}"
    if change is not None:
        # a row that was written since keeps its value
        where += (
            f" AND {_there_and_back(change, f'b.{name}', s)} IS NOT DISTINCT FROM t.{name}"
            if s.database == "postgresql"
            else f" AND {_there_and_back(change, f'b.{name}', s)} IS t.{name}"
        )
    alias = f"{table} AS t" if s.database == "sqlite" else f"{table} t"
    return f"UPDATE {alias} SET {name} = b.{name} FROM {kept} b WHERE {where}"


def _there_and_back(change: Change, value: str, s: Situation) -> str:
    new, old = _type(change.before), _type(change.after)
    if s.database == "sqlite":
        kinds = f"'{kind_of(old)}', '{kind_of(new)}'"
        return f"dfrun_cast(dfrun_cast({value}, {kinds}), '{kind_of(new)}', '{kind_of(old)}')"
    there = (cast(old, new).using or f"{{c}}::{new}").replace("{c}", value)
    return (cast(new, old).using or f"{{c}}::{old}").replace("{c}", f"({there})")


def _type(facts: Facts | None) -> str:
    assert facts is not None, "a change of type has both sides"
    return facts["type"]


async def losses(live: Live, plan: MigrationPlan, target: Target) -> tuple[Loss, ...]:
    """For each step of a rollback what is lost, counted in the rows that are there."""
    quote = sqltext.quoted if live.database == "sqlite" else postgresql.quoted
    found: list[Loss] = []
    for change in plan.changes:
        op, _, subject = change.partition(":")
        table, _, name = subject.partition(".")
        lost = ""
        if op == "drop_column":
            sql = f"SELECT count(*) FROM {quote(table)} WHERE {quote(name)} IS NOT NULL"
            rows = await _count(live, sql)
            lost = (
                f"{rows} row{'' if rows == 1 else 's'} of {table} have a value in {name}, which goes to the trash"
                if rows
                else ""
            )
        elif op == "drop_table":
            rows = await _count(live, f"SELECT count(*) FROM {quote(table)}")
            lost = f"{rows} row{'' if rows == 1 else 's'} of {table} go to the trash" if rows else ""
        elif op in ("change_type", "narrow_type"):
            lost = "" if f"restore_values:{subject}" in plan.changes else (
                f"{subject} is converted back; no values were kept that are known by a key"
            )  # fmt: skip
        found.append(Loss(change, "with_loss" if lost else "exact", lost))
    found += [Loss(problem.what, "no", problem.what) for problem in plan.blocked]
    for migration in target.migrations:
        for body in migration.steps:
            step = step_from(body)
            if step.parts[0].rule == "sql":
                found.append(Loss(step.op, "no", f"{step.op} was written by hand and has no down"))
            elif step.parts[0].rule == "backfill" and any(b.kind == "shadow" for b in step.backups):
                lost = f"values written to {step.backups[0].table}.{step.backups[0].name} since then are replaced"
                found.append(Loss(step.op, "with_loss", lost))
    return tuple(found)


async def _count(live: Live, sql: str) -> int:
    from sqlalchemy.exc import DBAPIError

    try:
        return int(await live.value(sql))
    except DBAPIError:
        return 0  # it has another name until the rollback's own renames
