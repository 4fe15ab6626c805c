"""The way to each change on SQLite: native where it can, else the table is rebuilt (`rebuild`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runner.migrate import sqlite
from runner.migrate.difference import Change
from runner.migrate.rebuild import Rebuild, index_statements, mentioned, with_parts
from runner.migrate.recipes import Situation, given
from runner.migrate.snapshot import Facts
from runner.migrate.sqlite import column_text, create_index, drop_index
from runner.migrate.sqltext import quoted
from runner.migrate.step import Backup, Probe, Step

_INDEX_OPS = frozenset({"add_index", "drop_index", "change_index", "rename_index"})


def steps_for(changes: Sequence[Change], situation: Situation) -> list[Step]:
    """The steps that carry out all changes, in the order they must run in."""
    tables: dict[str, list[Change]] = {}
    for change in changes:
        tables.setdefault(change.table, []).append(change)
    found: list[Step] = []
    for table, own in sorted(tables.items()):
        found += _table_steps(table, own, situation)
    phases = {"expand": 0, "backfill": 1, "contract": 2}
    return sorted(found, key=lambda step: (phases[step.phase], step.rank))


def _table_steps(table: str, changes: list[Change], s: Situation) -> list[Step]:
    if changes[0].op == "create_table":
        sql = [sqlite.create_table(s.want, table), *index_statements(s.want, table)]
        return [s.step(changes[0], "create_table", "expand", 20, "brief", sql, [f"DROP TABLE {quoted(table)}"])]
    if changes[0].op == "drop_table":
        return [_drop_table(changes[0], s)]
    native = _Native(table, changes, s)
    return native.steps() if native.is_possible() else [Rebuild(table, changes, s).step()]


def _drop_table(change: Change, s: Situation) -> Step:
    table, kept = change.table, s.trash(change.table)
    # names of indexes are the file's: those of the trash would be in the way of a table of the same name
    sql = [text for name, facts in s.have.of("index", table).items() for text in drop_index(name, facts)]
    if s.on_drop.get(table) == "drop":
        return s.step(change, "drop_table", "contract", 97, "brief", [*sql, f"DROP TABLE {quoted(table)}"])
    sql.append(f"ALTER TABLE {quoted(table)} RENAME TO {quoted(kept)}")
    backup = Backup("trash_table", table, table, kept)
    return s.step(change, "drop_table", "contract", 97, "brief", sql, backups=[backup])


class _Native:
    """The changes of one table by ALTER TABLE alone, where that can be."""

    def __init__(self, table: str, changes: Sequence[Change], s: Situation) -> None:
        self.table, self.s, self.changes = table, s, changes
        self.rules: dict[str, dict[str, Facts]] = {}

    def is_possible(self) -> bool:
        """Whether SQLite does all of them without a copy."""
        new = {c.name for c in self.changes if c.op == "add_column"}
        for change in self.changes:
            match change.op:
                case "add_column":
                    possible = self._can_add(given(change.after))
                case "add_check" | "add_foreign_key":
                    possible = self._goes_with(change, new)
                case "drop_column":
                    possible = self._can_leave(change)
                case op:
                    possible = op in _INDEX_OPS
            if not possible:
                return False
        return True

    def _can_add(self, after: Facts) -> bool:
        default = after.get("default", "")
        is_constant = not re.match(r"\(|CURRENT_", default)
        return (
            is_constant and (after["null"] == "yes" or bool(default)) and not after.get("generated", "").startswith("s")
        )

    def _goes_with(self, change: Change, new: set[str]) -> bool:
        """Whether the rule can stand at a column that is added."""
        facts = given(change.after)
        names = mentioned(facts["definition"].partition(" REFERENCES ")[0], self.s.want, self.table)
        if len(names) != 1 or not names <= new:
            return False
        (name,) = names
        column = self.s.want.items["column", self.table, name]
        if facts["kind"] == "f" and ("default" in column or column["null"] == "no"):
            return False
        self.rules.setdefault(name, {})[change.name] = facts
        return True

    def _can_leave(self, change: Change) -> bool:
        before = given(change.before)
        if self.s.on_drop.get(self.table) == "drop" or (before["null"] == "no" and "default" not in before):
            return False
        rules = [f["definition"] for f in self.s.have.of("constraint", self.table).values()]
        rules += [f["definition"] for n, f in self.s.extra.of("index", self.table).items()]
        rules += [f["generated"] for f in self.s.have.of("column", self.table).values() if "generated" in f]
        return not any(change.name in mentioned(text, self.s.have, self.table) for text in rules)

    def steps(self) -> list[Step]:
        """One step a change."""
        return [step for change in self.changes for step in self._steps(change)]

    def _steps(self, change: Change) -> Iterator[Step]:
        table, s = quoted(self.table), self.s
        match change.op:
            case "add_column":
                rules = self.rules.get(change.name)
                sql = [f"ALTER TABLE {table} ADD COLUMN {column_text(change.name, given(change.after), rules)}"]
                step = s.step(change, "add_column", "expand", 40, "brief", sql)
                parts = [s.part(c, f"{c.op}_new") for c in self.changes if c.name in (rules or ())]
                yield with_parts(step, [*step.parts, *parts])
            case "drop_column":
                kept = s.trash(change.name)
                sql = [f"ALTER TABLE {table} RENAME COLUMN {quoted(change.name)} TO {quoted(kept)}"]
                backup = Backup("trash_column", self.table, change.name, kept)
                yield s.step(change, "drop_column", "contract", 96, "brief", sql, backups=[backup])
            case "add_index" | "change_index" | "rename_index":
                facts = given(change.after)
                sql = []
                if change.op == "change_index":
                    sql = drop_index(change.name, given(change.before))
                elif change.op == "rename_index":
                    sql = drop_index(given(change.before)["name"], facts)
                sql += create_index(self.table, change.name, facts, s.want.of("column", self.table))
                is_new = change.op == "add_index" and "unique" in facts
                rule = "add_unique_index" if is_new else change.op
                yield s.step(change, rule, "expand", 76, "brief", sql, probes=_index_probes(s, change, facts))
            case "drop_index":
                sql = drop_index(change.name, given(change.before))
                yield s.step(change, "drop_index", "contract", 95, "brief", sql)


def _index_probes(s: Situation, change: Change, facts: Facts) -> list[Probe]:
    if "unique" not in facts:
        return []
    found = re.fullmatch(r"\((.*?)\)( WHERE .*)?", facts["definition"])
    names = [
        n for n in s.live.of("column", change.table) if n in mentioned(found[1] if found else "", s.have, change.table)
    ]
    if found is None or not names:
        return []
    given = " AND ".join(f"{quoted(n)} IS NOT NULL" for n in names)
    where = f"{found[2]} AND {given}" if found[2] else f" WHERE {given}"
    inner = f"SELECT 1 FROM {quoted(change.table)}{where} GROUP BY {', '.join(map(quoted, names))} HAVING count(*) > 1"
    sql = f"SELECT count(*) FROM ({inner}) d"
    is_same = s.names.table(change.table) == change.table
    says = f"values of {', '.join(names)} stand in more than one row of {change.table}"
    return [s.probe_text(sql, sql if is_same else None, says, "make these values unique")]
