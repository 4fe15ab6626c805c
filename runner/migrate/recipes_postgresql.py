"""The safe way to each change on PostgreSQL: brief locks, scans and builds beside readers and writers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from runner.migrate import postgresql
from runner.migrate.difference import KINDS, Change
from runner.migrate.postgresql import add_constraint, column_text, literal, quoted
from runner.migrate.recipes import Situation, given
from runner.migrate.rules_postgresql import RuleRecipes, cast_of, key_of
from runner.migrate.snapshot import OWN, Facts
from runner.migrate.step import Backup, Batch, Mode, Probe, Step
from schemas.names import cut

_VOLATILE = re.compile(r"gen_random_uuid|uuidv[47]|clock_timestamp|random\(|nextval|timeofday")
_BATCH_ROWS, _PAUSE_MS = 5_000, 0


def steps_for(changes: Sequence[Change], situation: Situation) -> list[Step]:
    """The steps that carry out all changes, in the order they must run in."""
    recipes = Recipes(changes, situation)
    found = [step for change in changes for step in recipes.steps(change)]
    found += list(recipes.kept_references())
    phases = {"expand": 0, "backfill": 1, "contract": 2}
    return sorted(found, key=lambda step: (phases[step.phase], step.rank))


class Recipes(RuleRecipes):
    """The recipes for one plan."""

    def steps(self, change: Change) -> Iterator[Step]:
        """The steps of one change."""
        word = change.op
        if word.startswith(("add_", "change_", "drop_")) and word.partition("_")[2] in KINDS.values():
            verb, _, kind = word.partition("_")
            yield from getattr(self, f"_{verb}_{kind}", partial(self._constraint, verb))(change)
        else:
            yield from getattr(self, f"_{word}")(change)

    # tables

    def _create_table(self, change: Change) -> Iterator[Step]:
        table = change.table
        sql: Sequence[str] = self.s.wanted.tables.get(table, ())
        if not sql:
            words = postgresql.words_needed(self.s.want.of("index", table).values())
            sql = [*words, *postgresql.create_table(self.s.want, table)]
        undo = [f"DROP TABLE {quoted(table)}"]
        yield self.s.step(change, "create_table", "expand", 20, "brief", sql, undo, locks={})
        for name, facts in self.s.want.of("constraint", table).items():
            if facts["kind"] != "f":
                continue
            part = Change("create_table", table)
            reference = self.s.wanted.references.get((table, name))
            add = reference.text if reference else add_constraint(table, name, facts)
            is_late = not self._has_key(facts)
            yield self.s.step(
                part, "create_table", "contract" if is_late else "expand", 88 if is_late else 21, "brief",
                [add], [f"ALTER TABLE {quoted(table)} DROP CONSTRAINT {quoted(name)}"],
                label="reference of", locks={facts["target"]: "SRE"}, others=[facts["target"]],
            )  # fmt: skip

    def _drop_table(self, change: Change) -> Iterator[Step]:
        table, kept = change.table, self.s.trash(change.table)
        if self.s.on_drop.get(table) == "drop":
            yield self.s.step(change, "drop_table", "contract", 97, "brief", [f"DROP TABLE {quoted(table)}"])
            return
        sql, others = [], set()
        for name, facts in self.s.have.of("constraint", table).items():
            if facts["kind"] == "f":
                sql.append(self._alter(change, f"DROP CONSTRAINT {quoted(name)}"))
                others.add(facts["target"])
            elif facts["kind"] in "pux":
                sql.append(self._alter(change, f"RENAME CONSTRAINT {quoted(name)} TO {quoted(self.s.trash(name))}"))
        for name in self.s.have.of("index", table):
            sql.append(f"ALTER INDEX {quoted(name)} RENAME TO {quoted(self.s.trash(name))}")
        sql.append(self._alter(change, f"RENAME TO {quoted(kept)}"))
        yield self.s.step(
            change, "drop_table", "contract", 97, "brief", sql,
            [f"ALTER TABLE {quoted(kept)} RENAME TO {quoted(table)}"],
            backups=[Backup("trash_table", table, table, kept)], locks=dict.fromkeys((table, *sorted(others)), "AEL"),
            others=sorted(others),
        )  # fmt: skip

    def _set_comment(self, change: Change) -> Iterator[Step]:
        text = (change.after or {}).get("comment")
        sql = f"COMMENT ON TABLE {quoted(change.table)} IS {literal(text) if text else 'NULL'}"
        yield self.s.step(change, "set_comment", "expand", 56, "brief", [sql])

    def _set_row_security(self, change: Change) -> Iterator[Step]:
        before, after = given(change.before), given(change.after)
        sql = postgresql.row_security(change.table, before, after)
        undo = postgresql.row_security(change.table, after, before)
        yield self.s.step(change, "set_row_security", "contract", 95, "brief", sql, undo)

    def _drop_row_security(self, change: Change) -> Iterator[Step]:
        before, after = given(change.before), given(change.after)
        sql = postgresql.row_security(change.table, before, after)
        undo = postgresql.row_security(change.table, after, before)
        yield self.s.step(change, "drop_row_security", "expand", 30, "brief", sql, undo)

    # columns

    def _add_column(self, change: Change) -> Iterator[Step]:
        after = given(change.after)
        add = self._alter(change, f"ADD COLUMN {column_text(change.name, after)}")
        undo = [self._alter(change, f"DROP COLUMN {quoted(change.name)}")]
        default = after.get("default", "")
        if "generated" in after or "identity" in after or default == "nextval(owned)":
            yield self.s.step(change, "add_column_computed", "expand", 40, "alone", [add], undo)
        elif _VOLATILE.search(default):
            yield from self._add_volatile(change, after, undo)
        elif after["null"] == "yes" or default:
            yield self.s.step(change, "add_column", "expand", 40, "brief", [add], undo)
        elif (change.table, change.name) in self.s.fills:
            fill = self.s.fills[change.table, change.name]
            filled = column_text(change.name, {**after, "default": fill})
            sql = [self._alter(change, f"ADD COLUMN {filled}"), self._column_action(change, "DROP DEFAULT")]
            yield self.s.step(change, "add_column_filled", "expand", 40, "brief", sql, undo)
        else:
            probe = _empty(self.s, change)
            yield self.s.step(change, "add_column_required", "expand", 40, "brief", [add], undo, probes=[probe])

    def _add_volatile(self, change: Change, after: Facts, undo: list[str]) -> Iterator[Step]:
        plain = {key: value for key, value in after.items() if key != "default"} | {"null": "yes"}
        sql = [
            self._alter(change, f"ADD COLUMN {column_text(change.name, plain)}"),
            self._column_action(change, f"SET DEFAULT {after['default']}"),
        ]
        yield self.s.step(change, "add_column_volatile", "expand", 40, "brief", sql, undo)
        name, key = quoted(change.name), key_of(self.s, change.table)
        batch = Batch(change.table, key, f"{name} = {after['default']}", f"{name} IS NULL", _BATCH_ROWS, _PAUSE_MS)
        yield backfill_step(self.s, change, "add_column_volatile", batch)
        if after["null"] == "no":
            yield from self._required(change, "add_column_volatile", {**after, "null": "yes"}, [])

    def _drop_column(self, change: Change) -> Iterator[Step]:
        before, kept = given(change.before), self.s.trash(change.name)
        if self.s.on_drop.get(change.table) == "drop":
            sql = [self._alter(change, f"DROP COLUMN {quoted(change.name)}")]
            yield self.s.step(change, "drop_column", "contract", 96, "brief", sql)
            return
        actions = []
        if "identity" in before:
            actions.append("DROP IDENTITY")
        if before["null"] != "yes":
            actions.append("DROP NOT NULL")
        sql = [self._column_action(change, action) for action in actions]
        sql.append(self._alter(change, f"RENAME COLUMN {quoted(change.name)} TO {quoted(kept)}"))
        undo = [self._alter(change, f"RENAME COLUMN {quoted(kept)} TO {quoted(change.name)}")]
        backup = Backup("trash_column", change.table, change.name, kept)
        yield self.s.step(change, "drop_column", "contract", 96, "brief", sql, undo, backups=[backup])

    def _change_type(self, change: Change) -> Iterator[Step]:
        before, after, found = given(change.before), given(change.after), cast_of(change)
        name, rule = quoted(change.name), found.rule
        if rule == "widen_type" and self._computed_indexes(change):
            rule = "widen_type_indexed"
        kind = after["type"] + (f" COLLATE {after['collation']}" if "collation" in after else "")
        using = f" USING {found.using.replace('{c}', name)}" if found.using else ""
        if rule == "change_zone":
            # instants are read as UTC; the server sees that it need not write the table only without an expression
            sql = ["SET LOCAL timezone = 'UTC'", self._column_action(change, f"TYPE {kind}")]
        else:
            sql = [self._column_action(change, f"TYPE {kind}{using}")]
        moves_default = "default" in before and (rule not in _WIDE or before.get("default") != after.get("default"))
        if moves_default:
            sql.insert(0, self._column_action(change, "DROP DEFAULT"))
        if "default" in after and (moves_default or before.get("default") != after.get("default")):
            sql.append(self._column_action(change, f"SET DEFAULT {after['default']}"))
        backups: list[Backup] = []
        if rule not in _WIDE and rule != "change_zone":
            kept = self.s.shadow(change.table, change.name)
            sql.insert(0, _copy(change, kept, key_of(self.s, change.table)))
            backups = [Backup("shadow", change.table, change.name, kept)]
        is_zone = rule == "change_zone"
        yield self.s.step(
            change, rule, "expand" if rule in _WIDE else "contract", 50, "brief" if rule in _WIDE else "alone", sql,
            probes=self._misfits(change, found.misfits), backups=backups,
            says=f"{before['type']} becomes {after['type']}" + (", read as UTC" if is_zone else ""),
        )  # fmt: skip

    def _misfits(self, change: Change, condition: str | None) -> list[Probe]:
        if condition is None:
            return []

        def build(table: str, columns: Sequence[str]) -> str:
            where = condition.replace("{c}", quoted(columns[0]))
            return f"SELECT count(*) FROM {quoted(table)} WHERE {where}"

        says = f"rows of {change.table} have a value in {change.name} that is no {given(change.after)['type']}"
        return [self.s.probe(build, change.table, [change.name], says, "change these values, or the model")]

    def _computed_indexes(self, change: Change) -> bool:
        word = re.compile(rf"\b{re.escape(change.name)}\b")
        texts = [facts["definition"] for facts in self.s.have.of("index", change.table).values()]
        return any(word.search(text.partition(" WHERE ")[2]) or word.search(_calls(text)) for text in texts)

    def _change_collation(self, change: Change) -> Iterator[Step]:
        after = given(change.after)
        kind = f"{after['type']} COLLATE {after.get('collation', 'pg_catalog.default')}"
        sql = [self._column_action(change, f"TYPE {kind}")]
        yield self.s.step(change, "change_collation", "contract", 50, "alone", sql)

    def _change_generated(self, change: Change) -> Iterator[Step]:
        before, after = given(change.before), given(change.after)
        if "generated" in before and "generated" in after and self.s.version >= 17:
            sql = [self._column_action(change, f"SET EXPRESSION AS ({after['generated'].partition(' ')[2]})")]
        elif "generated" in before and "generated" not in after and before["generated"].startswith("s"):
            sql = [self._column_action(change, "DROP EXPRESSION")]
        else:
            sql = [
                self._alter(change, f"DROP COLUMN {quoted(change.name)}"),
                self._alter(change, f"ADD COLUMN {column_text(change.name, after)}"),
            ]
        yield self.s.step(change, "change_generated", "contract", 52, "alone", sql)

    def _set_default(self, change: Change) -> Iterator[Step]:
        if f"change_type:{change.subject}" in self.changes:
            return
        old = given(change.before).get("default")
        undo = self._column_action(change, f"SET DEFAULT {old}" if old else "DROP DEFAULT")
        new = given(change.after)["default"]
        plain = [self._column_action(change, f"SET DEFAULT {new}")]
        sql = self._own_sequence(change) if new == "nextval(owned)" else plain
        yield self.s.step(change, "set_default", "expand", 55, "brief", sql, [undo])

    def _drop_default(self, change: Change) -> Iterator[Step]:
        if f"change_type:{change.subject}" in self.changes:
            return
        old = given(change.before)["default"]
        undo = [] if old == "nextval(owned)" else [self._column_action(change, f"SET DEFAULT {old}")]
        yield self.s.step(
            change, "drop_default", "expand", 55, "brief", [self._column_action(change, "DROP DEFAULT")], undo
        )

    def _set_identity(self, change: Change) -> Iterator[Step]:
        before, after = given(change.before), given(change.after)
        table, name = literal(quoted(change.table)), literal(change.name)
        sql = []
        if before.get("default") == "nextval(owned)":
            drop = f"ALTER TABLE {quoted(change.table)} ALTER {quoted(change.name)} DROP DEFAULT; DROP SEQUENCE %s"
            run = f"EXECUTE format({literal(drop)}, pg_get_serial_sequence({table}, {name}))"
            sql.append(f"DO $dfrun$ BEGIN {run}; END $dfrun$")
        elif "default" in before:
            sql.append(self._column_action(change, "DROP DEFAULT"))
        if "identity" in before:
            word = "ALWAYS" if after["identity"] == "a" else "BY DEFAULT"
            sql.append(self._column_action(change, f"SET GENERATED {word}"))
        else:
            word = "ALWAYS" if after["identity"] == "a" else "BY DEFAULT"
            sql.append(self._column_action(change, f"ADD GENERATED {word} AS IDENTITY"))
            top = f"coalesce(max({quoted(change.name)}), 0) + 1"
            sql.append(
                f"SELECT setval(pg_get_serial_sequence({table}, {name}), {top}, false) FROM {quoted(change.table)}"
            )
        yield self.s.step(change, "set_identity", "contract", 67, "brief", sql)

    def _drop_identity(self, change: Change) -> Iterator[Step]:
        sql = [self._column_action(change, "DROP IDENTITY")]
        default = given(change.after).get("default")
        if default == "nextval(owned)":
            sql += self._own_sequence(change)
        elif default:
            sql.append(self._column_action(change, f"SET DEFAULT {default}"))
        yield self.s.step(change, "drop_identity", "contract", 49, "brief", sql)

    def _own_sequence(self, change: Change) -> list[str]:
        """A sequence of the column's own, as serial has it; it goes on after the largest value."""
        table, column = quoted(change.table), quoted(change.name)
        sequence = quoted(cut(f"{change.table}_{change.name}_seq"))
        return [
            f"CREATE SEQUENCE {sequence} OWNED BY {table}.{column}",
            self._column_action(change, f"SET DEFAULT nextval({literal(sequence)})"),
            f"SELECT setval({literal(sequence)}, coalesce(max({column}), 0) + 1, false) FROM {table}",
        ]

    def _set_not_null(self, change: Change) -> Iterator[Step]:
        def build(table: str, columns: Sequence[str]) -> str:
            return f"SELECT count(*) FROM {quoted(table)} WHERE {quoted(columns[0])} IS NULL"

        says = f"rows of {change.table} have no {change.name}"
        fix = f"give them one in a step of migrations/*.yaml, or declare {change.name} nullable"
        probe = self.s.probe(build, change.table, [change.name], says, fix)
        yield from self._required(change, "set_not_null", given(change.before), [probe])

    def _required(self, change: Change, rule: str, before: Facts, probes: list[Probe]) -> Iterator[Step]:
        name = quoted(change.name)
        if self.s.version >= 18:
            label = before.get("rule") or cut(f"{change.table}_{change.name}_not_null")
            if before["null"] == "yes":
                sql = [self._alter(change, f"ADD CONSTRAINT {quoted(label)} NOT NULL {name} NOT VALID")]
                undo = [self._column_action(change, "DROP NOT NULL")]
                yield self.s.step(change, rule, "contract", 65, "brief", sql, undo, probes=probes)
            sql = [self._alter(change, f"VALIDATE CONSTRAINT {quoted(label)}")]
            yield self.s.step(change, rule, "contract", 66, "alone", sql, label=f"prove {change.op}",
                              locks={change.table: "SUE"})  # fmt: skip
            return
        label = cut(f"{OWN}nn_{change.table}_{change.name}")
        sql = [self._alter(change, f"ADD CONSTRAINT {quoted(label)} CHECK ({name} IS NOT NULL) NOT VALID")]
        undo = [self._alter(change, f"DROP CONSTRAINT {quoted(label)}")]
        yield self.s.step(change, rule, "contract", 65, "brief", sql, undo, probes=probes)
        sql = [self._alter(change, f"VALIDATE CONSTRAINT {quoted(label)}")]
        yield self.s.step(change, rule, "contract", 66, "alone", sql, label=f"prove {change.op}",
                          locks={change.table: "SUE"})  # fmt: skip
        sql = [self._column_action(change, "SET NOT NULL"), *undo]
        yield self.s.step(change, rule, "contract", 66, "brief", sql, label=f"finish {change.op}")

    def _drop_not_null(self, change: Change) -> Iterator[Step]:
        sql = [self._column_action(change, "DROP NOT NULL")]
        yield self.s.step(change, "drop_not_null", "expand", 57, "brief", sql)

    def _rename_value(self, change: Change) -> Iterator[Step]:
        old, new = given(change.before)["value"], given(change.after)["value"]
        name, key = quoted(change.name), key_of(self.s, change.table)
        batch = Batch(change.table, key, f"{name} = {literal(new)}", f"{name} = {literal(old)}", _BATCH_ROWS, _PAUSE_MS)
        yield backfill_step(self.s, change, "rename_value", batch)


_WIDE = ("widen_type", "widen_type_indexed")


def backfill_step(situation: Situation, change: Change, rule: str, batch: Batch) -> Step:
    """A step that updates a table by ranges of its key."""
    from dataclasses import replace

    sql = f"UPDATE {quoted(batch.table)} SET {batch.assignments} WHERE ({batch.where})"
    mode: Mode = "batches" if batch.key else "alone"
    step = situation.step(change, rule, "backfill", 45, mode, [sql], label=f"fill {change.op}",
                          locks={change.table: "ROW EXCLUSIVE"})  # fmt: skip
    return replace(step, batch=batch) if batch.key else step


def _calls(definition: str) -> str:
    """The parts of an index that are computed rather than plain columns."""
    return " ".join(re.findall(r"\w+\(.*?\)|\(\(.*?\)\)", definition.partition(" ")[2]))


def _copy(change: Change, kept: str, key: Sequence[str]) -> str:
    columns = ", ".join(quoted(name) for name in dict.fromkeys((*key, change.name)))
    return f"CREATE TABLE {quoted(kept)} AS SELECT {columns} FROM {quoted(change.table)}"


def _empty(situation: Situation, change: Change) -> Probe:
    def build(table: str, columns: Sequence[str]) -> str:
        return f"SELECT count(*) FROM {quoted(table)}"

    says = f"rows of {change.table} would need a value for {change.name}"
    fix = f"give {change.name} a default, declare it nullable, or fill it in a step of migrations/*.yaml"
    return situation.probe(build, change.table, [], says, fix)
