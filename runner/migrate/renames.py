"""Which hints (`renamed_from`) are renames of this database, and the statements that carry them out.

A hint whose source is gone is spent and says nothing; one that cannot be followed is told, never left out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runner.errors import Problem
from runner.migrate import postgresql, sqltext
from runner.migrate.difference import Change
from runner.migrate.recipes import Names, Situation
from runner.migrate.snapshot import OWN, Snapshot, canonical
from runner.migrate.step import Backup, Step
from runner.migrate.wanted import Hint
from runner.sql.filters import Database
from schemas.names import cut


@dataclass(frozen=True, slots=True)
class Rename:
    """One rename that will happen. `table` is the table's name after the renames of tables; for a table it is its own
    new name. `op` is the verb of the catalogue."""

    op: str
    table: str
    old: str
    new: str

    @property
    def change(self) -> Change:
        """As a change."""
        return Change(self.op, self.table, "" if self.op.endswith("_table") else self.new, {"name": self.old})

    @property
    def hint(self) -> str:
        """As history remembers it."""
        return canonical([self.op, self.table, self.new, self.old])


def resolve(
    hints: Sequence[Hint], have: Snapshot, want: Snapshot, spent: frozenset[str]
) -> tuple[list[Rename], list[Problem]]:
    """The renames to carry out, tables first, and the hints that cannot be followed (DF605)."""
    problems: list[Problem] = []
    tables = _pairs("rename_table", "", [(h.table, h.old) for h in hints if h.kind == "table"], have.tables,
                    want.tables, spent, problems)  # fmt: skip
    renames = [Rename("rename_table", new, old, new) for new, old in tables.items()]
    for kind in ("column", "index"):
        by_table: dict[str, list[tuple[str, Sequence[str]]]] = {}
        for hint in hints:
            if hint.kind == kind:
                by_table.setdefault(hint.table, []).append((hint.name, hint.old))
        for table, listed in by_table.items():
            there = have.of("column" if kind == "column" else "index", tables.get(table, table))
            wanted = want.of("column" if kind == "column" else "index", table)
            op = f"rename_{kind}"
            found = _pairs(op, table, listed, set(there), set(wanted), spent, problems)
            renames += [Rename(op, table, old, new) for new, old in found.items()]
    return renames, problems


def _pairs(
    op: str, table: str, hints: Iterable[tuple[str, Sequence[str]]], there: Iterable[str], wanted: Iterable[str],
    spent: frozenset[str], problems: list[Problem],
) -> dict[str, str]:  # fmt: skip
    have, want = set(there), set(wanted)
    sources = {new: next((old for old in former if old in have), None) for new, former in hints}
    found: dict[str, str] = {}
    for new, old in sources.items():
        if old is None or Rename(op, table or new, old, new).hint in spent:
            continue
        if new not in have or (sources.get(old) is not None and new in sources.values()):
            found[new] = old  # a free name, or names that change places
        elif old not in want:
            where = f"{table}.{new}" if table else new
            what = f"{where} is renamed from {old!r}, and both are there"
            fix = f"drop {old!r} by hand when its data has moved, or remove the hint"
            problems.append(Problem("DF605", what, None, "a rename needs its new name to be free", fix))
    return found


def inverse(spent: Iterable[str]) -> list[Hint]:
    """The hints that take renames back, given what history remembers of them, oldest first."""
    tables: dict[str, str] = {}
    columns: dict[tuple[str, str], tuple[str, str]] = {}
    found: list[Hint] = []
    for line in spent:
        op, table, *names = json.loads(line)
        if op == "rename_table":
            first = next((was for was, now in tables.items() if now == names[1]), names[1])
            tables[first] = names[0]
    before = {now: was for was, now in tables.items()}
    for line in spent:
        op, table, *names = json.loads(line)
        table = before.get(table, table)
        if op == "rename_column":
            key = next((k for k, (t, now) in columns.items() if (t, now) == (table, names[1])), (table, names[1]))
            columns[key] = (table, names[0])
        elif op == "rename_value":
            name, new, old = names
            found.append(Hint("value", table, name, (new,), old))
    found += [Hint("table", was, "", (now,)) for was, now in tables.items()]
    found += [Hint("column", table, was, (now,)) for (table, was), (_, now) in columns.items()]
    return found


def restores(backups: Sequence[Backup], live: Snapshot, want: Snapshot) -> list[Rename]:
    """What comes back from the trash: backups that are still there and that the wanted state has a place for."""
    found: list[Rename] = []
    for backup in backups:
        if backup.kind == "trash_table" and backup.kept in live.tables and backup.name in want.tables:
            if backup.name not in live.tables:
                found.append(Rename("restore_table", backup.name, backup.kept, backup.name))
        elif backup.kind == "trash_column":
            columns = live.of("column", backup.table)
            is_wanted = ("column", backup.table, backup.name) in want.items
            if backup.kept in columns and is_wanted and backup.name not in columns:
                found.append(Rename("restore_column", backup.table, backup.kept, backup.name))
    return found


def statements(renames: Sequence[Rename], database: Database) -> list[tuple[Rename, list[str], list[str]]]:
    """Each rename with its statements and those that undo it; names that change places go over a third one."""
    quote = sqltext.quoted if database == "sqlite" else postgresql.quoted
    found: list[tuple[Rename, list[str], list[str]]] = []
    for op in ("restore_table", "rename_table", "restore_column", "rename_column", "rename_index"):
        group = [r for r in renames if r.op == op]
        taken = {(r.table if op.endswith("column") else "", r.old) for r in group}
        waiting: list[tuple[Rename, str]] = []
        for rename in group:
            where = rename.table if op.endswith("column") else ""
            if (where, rename.new) in taken:
                aside = cut(f"{OWN}was_{rename.old}")
                found.append((rename, [_rename(rename, rename.old, aside, quote)], []))
                waiting.append((rename, aside))
            elif op != "rename_index" or database == "postgresql":
                sql = [_rename(rename, rename.old, rename.new, quote)]
                found.append((rename, sql, [_rename(rename, rename.new, rename.old, quote)]))
        for rename, aside in waiting:
            found.append((rename, [_rename(rename, aside, rename.new, quote)], []))
    return found


def old_name_steps(renames: Sequence[Rename], situation: Situation) -> list[Step]:
    """The steps that take the views under old names away, first of all that breaks code of the previous release."""
    found = []
    for rename in renames:
        change = Change("drop_old_name", rename.table, rename.old)
        sql = [f"DROP VIEW IF EXISTS {postgresql.quoted(rename.old)}"]
        found.append(situation.step(change, "drop_old_name", "contract", 1, "brief", sql, locks={}))
    return found


def _rename(rename: Rename, old: str, new: str, quote):  # type: ignore[no-untyped-def]
    if rename.op.endswith("_index"):
        return f"ALTER INDEX {quote(old)} RENAME TO {quote(new)}"
    if rename.op.endswith("_table"):
        return f"ALTER TABLE {quote(old)} RENAME TO {quote(new)}"
    return f"ALTER TABLE {quote(rename.table)} RENAME COLUMN {quote(old)} TO {quote(new)}"


def names_of(renames: Sequence[Rename]) -> Names:
    """What everything was called before."""
    tables = {r.new: r.old for r in renames if r.op.endswith("_table")}
    columns = {(r.table, r.new): r.old for r in renames if r.op.endswith("_column")}
    return Names(tables, columns)


def ambiguous(
    changes: Sequence[Change], removed: frozenset[tuple[str, str]], allow: frozenset[str],
    models: Mapping[str, str],
) -> list[Problem]:  # fmt: skip
    """DF604 for each dropped column that a new one of its table and type may be."""
    problems: list[Problem] = []
    for gone in changes:
        if gone.op != "drop_column" or (gone.table, gone.name) in removed or gone.id in allow:
            continue
        for new in changes:
            if new.op != "add_column" or new.table != gone.table or gone.before is None or new.after is None:
                continue
            if gone.before["type"] == new.after["type"]:
                what = f"{gone.subject} is gone and {new.subject} is new, both {new.after['type']}: renamed or not?"
                model = models.get(gone.table, gone.table)
                fix = f"renamed_from: {gone.name} on {new.name}, or removed: [{gone.name}] on {model}"
                why = "a rename keeps the values, a drop and an add do not"
                problems.append(Problem("DF604", what, None, why, fix))
                break
    return problems
