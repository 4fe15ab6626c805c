"""A table of SQLite copied into its new form, once for all of its changes.

It keeps rows, children, triggers, views, hand-made indexes and the AUTOINCREMENT counter. It needs `foreign_keys=OFF`
outside the transaction, or dropping the old table would delete the children's rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from runner.migrate import sqlite
from runner.migrate.conversions import kind_of
from runner.migrate.difference import Change
from runner.migrate.recipes import Situation, given
from runner.migrate.risks import highest
from runner.migrate.snapshot import OWN, Facts, Snapshot
from runner.migrate.sqlite import AUDIT, create_index
from runner.migrate.sqltext import quoted, tokens
from runner.migrate.step import Backup, Part, Probe, Step
from runner.sql.fulltext import lite_drops
from schemas.names import cut


def index_statements(snapshot: Snapshot, table: str) -> list[str]:
    """The statements that build every index of a table."""
    columns = snapshot.of("column", table)
    found = snapshot.of("index", table).items()
    return [text for name, facts in found for text in create_index(table, name, facts, columns)]


class Rebuild:
    """One table copied into its new form."""

    def __init__(self, table: str, changes: Sequence[Change], s: Situation) -> None:
        self.table, self.changes, self.s = table, changes, s
        self.have = s.have.of("column", table)
        self.types = {c.name: c for c in changes if c.op == "change_type"}
        self.values: dict[str, list[tuple[str, str]]] = {}
        for change in changes:
            if change.op == "rename_value":
                pair = (given(change.before)["value"], given(change.after)["value"])
                self.values.setdefault(change.name, []).append(pair)
        self.probes: list[Probe] = []
        self.backups: list[Backup] = []
        self.before: list[str] = []

    def step(self) -> Step:
        """The step with everything the table needs."""
        s, table, new = self.s, quoted(self.table), quoted(cut(f"{OWN}new_{self.table}"))
        parts = [self._part(change) for change in self.changes if not self._is_inside(change)]
        target = self._target()
        inserted, selected = self._columns(target)
        sql = ["PRAGMA legacy_alter_table=ON", *self.before]
        sql.append(sqlite.create_table(target, self.table, cut(f"{OWN}new_{self.table}")))
        sql.append(f"INSERT INTO {new} ({', '.join(inserted)}) SELECT {', '.join(selected)} FROM {table}")
        if self._counts(s.have) and self._counts(target):
            kept, given = _text(cut(f"{OWN}new_{self.table}")), _text(self.table)
            sql.append(f"DELETE FROM sqlite_sequence WHERE name = {kept}")
            sql.append(
                f"INSERT INTO sqlite_sequence (name, seq) SELECT {kept}, seq FROM sqlite_sequence WHERE name = {given}"
            )
        # an index over words is a table of its own, and the rows may get other numbers
        words = [n for n, f in s.have.of("index", self.table).items() if f["definition"].startswith(sqlite.WORDS)]
        sql += [text for name in words for text in lite_drops(name)]
        sql += [f"DROP TABLE {table}", f"ALTER TABLE {new} RENAME TO {table}", "PRAGMA legacy_alter_table=OFF"]
        sql += [*index_statements(target, self.table), *self._triggers()]
        change = Change("rebuild_table", self.table)
        step = s.step(change, "rebuild_table", "contract", 50, "brief", sql, probes=self.probes, backups=self.backups)
        return with_parts(step, parts)

    def _triggers(self) -> list[str]:
        """The triggers as they were; one of the trail that names a dropped column is made anew by its owner."""
        gone = [c.name for c in self.changes if c.op == "drop_column"]
        own = [a for a in self.s.attached if a.kind == "trigger" and a.table == self.table]
        return [a.sql for a in own if not (a.name.startswith(AUDIT) and any(map(a.mentions, gone)))]

    def _is_inside(self, change: Change) -> bool:
        """A default that a change of type brings along is no change of its own."""
        return change.op in ("set_default", "drop_default") and change.name in self.types

    def _target(self) -> Snapshot:
        """The table as wanted, with what was made by hand, and with the columns that go to the trash."""
        s = self.s
        items = dict(s.extra.only({self.table}).items)
        items |= s.want.only({self.table}).items
        order = [*s.have.order[self.table], *s.extra.order.get(self.table, ()), *s.want.order[self.table]]
        for change in self.changes:
            if change.op == "drop_column" and s.on_drop.get(self.table) != "drop":
                kept = s.trash(change.name)
                items["column", self.table, kept] = {"type": given(change.before)["type"], "null": "yes"}
                order = [kept if name == change.name else name for name in order]
                self.backups.append(Backup("trash_column", self.table, change.name, kept))
        order += [k[2] for k in items if k[0] == "column"]
        names = tuple(n for n in dict.fromkeys(order) if ("column", self.table, n) in items)
        return Snapshot(items, {self.table: names})

    def _columns(self, target: Snapshot) -> tuple[list[str], list[str]]:
        """The columns that are copied, and what is selected for each."""
        dropped = {b.kept: b.name for b in self.backups if b.kind == "trash_column"}
        inserted, selected = [], []
        for name, facts in target.of("column", self.table).items():
            if "generated" in facts:
                continue
            fill = self.s.fills.get((self.table, name))
            is_new = name not in self.have and name not in dropped and not self._is_extra(name)
            if is_new and (fill is None or "default" in facts or facts["null"] == "yes"):
                continue
            inserted.append(quoted(name))
            selected.append(str(fill) if is_new else self._selected(dropped.get(name, name), name))
        return inserted, selected

    def _is_extra(self, name: str) -> bool:
        return ("column", self.table, name) in self.s.extra.items

    def _selected(self, name: str, kept: str) -> str:
        text = quoted(name)
        if name in self.values:
            whens = " ".join(f"WHEN {_text(old)} THEN {_text(new)}" for old, new in self.values[name])
            text = f"CASE {text} {whens} ELSE {text} END"
        if name in self.types and kept == name:
            change = self.types[name]
            old, new = kind_of(given(change.before)["type"]), kind_of(given(change.after)["type"])
            if not _is_wider(old, new):
                text = f"dfrun_cast({text}, {_text(old)}, {_text(new)})"
        return text

    def _part(self, change: Change) -> Part:
        rule, says = change.op, ""
        after = change.after or {}
        match change.op:
            case "add_column":
                rule = self._added(change, after)
            case "add_index" if "unique" in after:
                rule = "add_unique_index"
            case "change_type":
                rule = self._typed(change)
                says = f"{given(change.before)['type']} becomes {after['type']}"
            case "set_not_null":
                self.probes.append(self._nulls(change))
            case "add_check" | "change_check":
                self._check(change)
            case "add_unique" | "change_unique" | "add_primary_key" | "change_primary_key":
                self._duplicates(change)
            case "add_foreign_key" | "change_foreign_key":
                self._reference(change)
        risk = self.s.risk(rule)
        # a table that is copied is never a small matter
        return Part(change.id, rule, highest(risk.level, "MEDIUM"), says or risk.says)

    def _added(self, change: Change, after: Facts) -> str:
        if "generated" in after:
            return "add_column_computed"
        if after["null"] == "yes" or "default" in after:
            return "add_column"
        if (self.table, change.name) in self.s.fills:
            return "add_column_filled"

        def build(table: str, columns: Sequence[str]) -> str:
            return f"SELECT count(*) FROM {quoted(table)}"

        says = f"rows of {self.table} would need a value for {change.name}"
        fix = f"give {change.name} a default, declare it nullable, or fill it in a step of migrations/*.yaml"
        self.probes.append(self.s.probe(build, self.table, [], says, fix))
        return "add_column_required"

    def _typed(self, change: Change) -> str:
        old, new = kind_of(given(change.before)["type"]), kind_of(given(change.after)["type"])
        if _is_wider(old, new):
            return "widen_type"

        def build(table: str, columns: Sequence[str]) -> str:
            return (f"SELECT count(*) FROM {quoted(table)} "
                    f"WHERE NOT dfrun_casts({quoted(columns[0])}, {_text(old)}, {_text(new)})")  # fmt: skip

        says = f"rows of {self.table} have a value in {change.name} that is no {new}"
        self.probes.append(self.s.probe(build, self.table, [change.name], says, "change these values, or the model"))
        kept = self.s.shadow(self.table, change.name)
        key = next((f["columns"] for f in self.s.have.of("constraint", self.table).values() if f["kind"] == "p"), "")
        columns = ", ".join(dict.fromkeys([*([key] if key else []), quoted(change.name)]))
        self.before.append(f"CREATE TABLE {quoted(kept)} AS SELECT {columns} FROM {quoted(self.table)}")
        self.backups.append(Backup("shadow", self.table, change.name, kept))
        return "change_type"

    def _nulls(self, change: Change) -> Probe:
        def build(table: str, columns: Sequence[str]) -> str:
            return f"SELECT count(*) FROM {quoted(table)} WHERE {quoted(columns[0])} IS NULL"

        says = f"rows of {self.table} have no {change.name}"
        fix = f"give them one in a step of migrations/*.yaml, or declare {change.name} nullable"
        return self.s.probe(build, self.table, [change.name], says, fix)

    def _check(self, change: Change) -> None:
        rule = given(change.after)["definition"].removeprefix("CHECK ")
        names = mentioned(rule, self.s.want, self.table)
        if not names <= set(self.have) or names & {*self.types, *self.values}:
            return  # of another form until the copy: the copy itself asks, and leaves no trace when it fails
        old = self.s.names
        sql = f"SELECT count(*) FROM {quoted(self.table)} WHERE NOT {rule}"
        is_askable = old.table(self.table) == self.table and all(old.column(self.table, n) == n for n in names)
        is_askable &= all(n in self.s.live.of("column", self.table) for n in names)
        says = f"rows of {self.table} break {change.name}"
        self.probes.append(self.s.probe_text(sql, sql if is_askable else None, says, "change these rows, or the model"))

    def _duplicates(self, change: Change) -> None:
        columns = given(change.after)["columns"]
        names = [n for n in self.have if n in mentioned(columns, self.s.want, self.table)]
        if len(names) < len(mentioned(columns, self.s.want, self.table)):
            return

        def build(table: str, columns: Sequence[str]) -> str:
            listed = ", ".join(quoted(c) for c in columns)
            given = " AND ".join(f"{quoted(c)} IS NOT NULL" for c in columns)
            inner = f"SELECT 1 FROM {quoted(table)} WHERE {given} GROUP BY {listed} HAVING count(*) > 1"
            return f"SELECT count(*) FROM ({inner}) d"

        says = f"values of {', '.join(names)} stand in more than one row of {self.table}"
        fix = "make these values unique, or change the model"
        self.probes.append(self.s.probe(build, self.table, names, says, fix))

    def _reference(self, change: Change) -> None:
        facts = given(change.after)
        target = facts["target"]
        own = [t for t in tokens(facts["columns"]) if t.text != ","]
        keys = [t for t in tokens(facts["target_columns"]) if t.text != ","]
        names = [t.text.strip('"') for t in own]
        if any(n not in self.have or n in self.types for n in names):
            return
        old = self.s.names

        def build(child: str, parent: str, mine: Sequence[str]) -> str:
            given = " AND ".join(f"c.{quoted(n)} IS NOT NULL" for n in mine)
            same = " AND ".join(f"p.{k.text} = c.{quoted(n)}" for n, k in zip(mine, keys, strict=True))
            exists = f"SELECT 1 FROM {quoted(parent)} p WHERE {same}"
            return f"SELECT count(*) FROM {quoted(child)} c WHERE {given} AND NOT EXISTS ({exists})"

        there = old.table(target) in self.s.live.tables
        then = build(self.table, target, names)
        now = build(old.table(self.table), old.table(target), [old.column(self.table, n) for n in names])
        says = f"rows of {self.table} reference a row of {target} that is not there"
        self.probes.append(self.s.probe_text(then, now if there else None, says, f"add the missing rows of {target}"))

    def _counts(self, snapshot: Snapshot) -> bool:
        keys: Mapping[str, Facts] = snapshot.of("constraint", self.table)
        return any(facts["definition"].endswith("AUTOINCREMENT") for facts in keys.values())


def with_parts(step: Step, parts: Sequence[Part]) -> Step:
    """The step as one that carries out these changes."""
    return replace(step, parts=tuple(parts))


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def mentioned(text: str, snapshot: Snapshot, table: str) -> set[str]:
    """The columns of the table that stand in a text."""
    words = {token.text for token in tokens(text) if token.kind in ("name", "word")}
    return {name for name in snapshot.of("column", table) if quoted(name) in words}


def _is_wider(old: str, new: str) -> bool:
    """Whether every stored value of one kind is the same value of the other."""
    if old == new:
        return True
    first, second = (re.fullmatch(r"decimal\((\d+),(\d+)\)", kind) for kind in (old, new))
    if first and second:
        return first[2] == second[2] and int(first[1]) <= int(second[1])
    return False
