"""The safe way to constraints and indexes on PostgreSQL: built or proved beside readers and writers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from runner.migrate.casts import Cast, cast
from runner.migrate.difference import Change
from runner.migrate.postgresql import add_constraint, create_index, quoted, words_needed
from runner.migrate.recipes import Situation, given
from runner.migrate.snapshot import OWN, Facts
from runner.migrate.step import Phase, Probe, Step
from schemas.names import cut


class RuleRecipes:
    """The recipes of constraints and indexes in one plan; what one change needs may depend on the others."""

    def __init__(self, changes: Sequence[Change], situation: Situation) -> None:
        self.s = situation
        self.changes = {change.id: change for change in changes}
        self.added = {(c.table, c.name) for c in changes if c.op == "add_column"}
        self.touched = {(c.table, c.name) for c in changes if c.op == "rename_value"}
        for change in changes:
            if change.op == "change_type" and cast_of(change).rule != "widen_type":
                self.touched.add((change.table, change.name))
        self.keys = {c.table: c for c in changes if c.op.endswith(("_primary_key", "_unique")) and c.before}

    def _alter(self, change: Change, action: str) -> str:
        return f"ALTER TABLE {quoted(change.table)} {action}"

    def _column_action(self, change: Change, action: str) -> str:
        return self._alter(change, f"ALTER COLUMN {quoted(change.name)} {action}")

    def _has_key(self, facts: Facts) -> bool:
        """Whether the target of a reference has its key before the plan tightens anything."""
        target = facts["target"]
        if target not in self.s.have.tables:
            return True
        keys = [f for f in self.s.have.of("constraint", target).values() if f["kind"] in "pu"]
        is_typed = any((target, name) in self.touched for name in names_in(facts["target_columns"]))
        return not is_typed and any(f["columns"] == facts["target_columns"] for f in keys)

    def _is_touched(self, change: Change, facts: Facts) -> bool:
        return any((change.table, name) in self.touched for name in names_in(facts.get("columns", "")))

    def _is_new(self, change: Change, facts: Facts) -> bool:
        names = names_in(facts.get("columns", ""))
        return bool(names) and all((change.table, name) in self.added for name in names)

    def _add_check(self, change: Change) -> Iterator[Step]:
        rule = "add_check_new" if self._is_new(change, given(change.after)) else "add_check"
        yield from self._proved_later(change, rule, "", [self._check_probe(change)] if rule == "add_check" else [])

    def _change_check(self, change: Change) -> Iterator[Step]:
        before, after = given(change.before), given(change.after)
        probes = [self._check_probe(change)]
        drop = self._alter(change, f"DROP CONSTRAINT {quoted(change.name)}")
        if self._is_touched(change, before):
            undo = [add_constraint(change.table, change.name, before)]
            yield self.s.step(change, "change_check", "expand", 30, "brief", [drop], undo, label="lift")
            yield from self._proved_later(change, "change_check", "", probes)
            return
        temporary = cut(f"{OWN}new_{change.name}")
        add = add_constraint(change.table, temporary, after, validated=False)
        undo = [self._alter(change, f"DROP CONSTRAINT {quoted(temporary)}")]
        yield self.s.step(change, "change_check", "contract", 70, "brief", [add], undo, probes=probes)
        prove = [self._alter(change, f"VALIDATE CONSTRAINT {quoted(temporary)}")]
        yield self.s.step(change, "change_check", "contract", 71, "alone", prove, label="prove change_check",
                          locks={change.table: "SUE"})  # fmt: skip
        swap = [drop, self._alter(change, f"RENAME CONSTRAINT {quoted(temporary)} TO {quoted(change.name)}")]
        yield self.s.step(change, "change_check", "contract", 72, "brief", swap, label="finish change_check")

    def _check_probe(self, change: Change) -> Probe:
        after = given(change.after)
        rule = after["definition"].removeprefix("CHECK ")
        sql = f"SELECT count(*) FROM {quoted(change.table)} WHERE NOT {rule}"
        names = names_in(after.get("columns", ""))
        there = self.s.live.of("column", change.table)
        # a rule over columns that are renamed or of another type today can be asked only when its time has come
        is_askable = (
            all(
                n in there and (change.table, n) not in self.touched and self.s.names.column(change.table, n) == n
                for n in names
            )
            and self.s.names.table(change.table) == change.table
        )
        says = f"rows of {change.table} break {change.name}"
        return self.s.probe_text(sql, sql if is_askable else None, says, "change these rows, or the model")

    def _proved_later(self, change: Change, rule: str, label: str, probes: list[Probe]) -> Iterator[Step]:
        after, name = given(change.after), quoted(change.name)
        is_reference = after["kind"] == "f"
        rank = 90 if is_reference else 70
        others = [after["target"]] if is_reference else []
        weak = "SRE" if is_reference else "AEL"
        phase: Phase = "expand" if rule.endswith("_new") and self._can_expand(after) else "contract"
        sql = [add_constraint(change.table, change.name, after, validated=False)]
        undo = [self._alter(change, f"DROP CONSTRAINT {name}")]
        yield self.s.step(
            change, rule, phase, rank, "brief", sql, undo, probes=probes, label=label, others=others,
            locks=dict.fromkeys((change.table, *others), weak),
        )  # fmt: skip
        sql = [self._alter(change, f"VALIDATE CONSTRAINT {name}")]
        yield self.s.step(
            change, rule, phase, rank + 1, "alone", sql, label=f"prove {change.op}", others=others,
            locks={change.table: "SUE", **{t: "ROW SHARE" for t in others if t != change.table}},
        )  # fmt: skip

    def _can_expand(self, facts: Facts) -> bool:
        return facts["kind"] != "f" or self._has_key(facts)

    def _add_foreign_key(self, change: Change) -> Iterator[Step]:
        rule = "add_foreign_key_new" if self._is_new(change, given(change.after)) else "add_foreign_key"
        probes = [self._reference_probe(change)] if rule == "add_foreign_key" else []
        yield from self._proved_later(change, rule, "", probes)

    def _change_foreign_key(self, change: Change) -> Iterator[Step]:
        before, after, name = given(change.before), given(change.after), quoted(change.name)
        drop = self._alter(change, f"DROP CONSTRAINT {name}")
        undo = [drop, add_constraint(change.table, change.name, before, validated=False)]
        others = sorted({before["target"], after["target"]})
        locks = dict.fromkeys((change.table, *others), "AEL")
        if self._reference_moves(change.table, before) or not self._has_key(after):
            yield self.s.step(change, "change_foreign_key", "expand", 30, "brief", [drop], undo[1:], label="lift",
                              locks=locks, others=others)  # fmt: skip
            yield from self._proved_later(change, "change_foreign_key", "", [self._reference_probe(change)])
            return
        sql = [drop, add_constraint(change.table, change.name, after, validated=False)]
        yield self.s.step(
            change, "change_foreign_key", "contract", 90, "brief", sql, undo, locks=locks, others=others,
            probes=[self._reference_probe(change)],
        )  # fmt: skip
        prove = [self._alter(change, f"VALIDATE CONSTRAINT {name}")]
        yield self.s.step(change, "change_foreign_key", "contract", 91, "alone", prove,
                          label="prove change_foreign_key", locks={change.table: "SUE"}, others=others)  # fmt: skip

    def _reference_probe(self, change: Change) -> Probe:
        facts = given(change.after)
        says = f"rows of {change.table} reference a row of {facts['target']} that is not there"
        fix = f"add the missing rows of {facts['target']}, or remove these"
        columns, targets = names_in(facts["columns"]), names_in(facts["target_columns"])

        def build(child: str, names: Sequence[str], parent: str, keys: Sequence[str]) -> str:
            given = " AND ".join(f"c.{quoted(n)} IS NOT NULL" for n in names)
            same = " AND ".join(f"p.{quoted(k)} = c.{quoted(n)}" for n, k in zip(names, keys, strict=True))
            exists = f"SELECT FROM {quoted(parent)} p WHERE {same}"
            return f"SELECT count(*) FROM {quoted(child)} c WHERE {given} AND NOT EXISTS ({exists})"

        child, parent = self.s.names.table(change.table), self.s.names.table(facts["target"])
        old = [self.s.names.column(change.table, n) for n in columns]
        old_keys = [self.s.names.column(facts["target"], n) for n in targets]
        is_typed = any((change.table, n) in self.touched for n in columns)
        is_typed |= any((facts["target"], n) in self.touched for n in targets)
        there = all(n in self.s.live.of("column", child) for n in old)
        there &= all(n in self.s.live.of("column", parent) for n in old_keys)
        now = build(child, old, parent, old_keys) if there and not is_typed else None
        return self.s.probe_text(build(change.table, columns, facts["target"], targets), now, says, fix)

    def _reference_moves(self, table: str, facts: Facts) -> bool:
        """Whether a reference's column, its target's, or its target's key is of another kind after this plan."""
        target, targets = facts["target"], facts["target_columns"]
        pairs = [(table, n) for n in names_in(facts["columns"])] + [(target, n) for n in names_in(targets)]
        key = self.keys.get(target)
        return any(p in self.touched for p in pairs) or (
            key is not None and given(key.before).get("columns") == targets
        )

    def kept_references(self) -> Iterator[Step]:
        """References that stay as they are, and must let go while the type or the key of their target changes."""
        for table in sorted(self.s.have.tables & self.s.want.tables):
            for name, facts in self.s.have.of("constraint", table).items():
                is_kept = self.s.want.items.get(("constraint", table, name)) == facts
                if facts["kind"] != "f" or not is_kept or not self._reference_moves(table, facts):
                    continue
                change = Change("change_foreign_key", table, name, facts, facts)
                yield from self._change_foreign_key(change)

    def _drop_constraint(self, change: Change, rule: str) -> Iterator[Step]:
        before = given(change.before)
        sql = [self._alter(change, f"DROP CONSTRAINT {quoted(change.name)}")]
        undo = [add_constraint(change.table, change.name, before, validated=before["kind"] not in "cf")]
        others = [before["target"]] if before["kind"] == "f" else []
        # an index goes after the references that need it
        rank = 30 if before["kind"] == "f" else 31
        yield self.s.step(change, rule, "expand", rank, "brief", sql, undo, others=others,
                          locks=dict.fromkeys((change.table, *others), "AEL"))  # fmt: skip

    def _constraint(self, verb: str, change: Change) -> Iterator[Step]:
        if verb == "drop":
            yield from self._drop_constraint(change, change.op)
            return
        facts = given(change.after)
        if facts["kind"] == "x":
            sql = [add_constraint(change.table, change.name, facts)]
            if verb == "change":
                sql.insert(0, self._alter(change, f"DROP CONSTRAINT {quoted(change.name)}"))
            yield self.s.step(change, change.op, "contract", 82, "alone", sql)
            return
        yield from self._unique(verb, change, facts)

    def _unique(self, verb: str, change: Change, facts: Facts) -> Iterator[Step]:
        """UNIQUE and PRIMARY KEY: the index is built beside readers and writers, then becomes the constraint."""
        temporary = cut(f"{OWN}new_{change.name}")
        definition = facts["definition"]
        word = "PRIMARY KEY" if facts["kind"] == "p" else "UNIQUE"
        ends = " NULLS NOT DISTINCT" if "NULLS NOT DISTINCT" in definition else ""
        include = re.search(r" INCLUDE \(.*?\)", definition)
        deferrable = re.search(r" DEFERRABLE.*", definition)
        index = {"definition": f"btree ({facts['columns']}){include[0] if include else ''}{ends}", "unique": "yes"}
        build = create_index(change.table, temporary, index, concurrently=True)
        undo = [f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(temporary)}"]
        probes = [_duplicates(self.s, change, names_in(facts["columns"]), self.touched)]
        yield self.s.step(change, change.op, "contract", 80, "outside", [build], undo, probes=probes,
                          label=f"build index of {change.op}", locks={change.table: "SUE"})  # fmt: skip
        sql = [self._alter(change, f"DROP CONSTRAINT {quoted(change.name)}")] if verb == "change" else []
        named = self.changes.get(f"drop_index:{change.subject}")
        if named is not None:  # an index that has the constraint's name until now
            sql.append(f"DROP INDEX {quoted(change.name)}")
        using = f"ADD CONSTRAINT {quoted(change.name)} {word} USING INDEX {quoted(temporary)}"
        sql.append(self._alter(change, using + (deferrable[0] if deferrable else "")))
        step = self.s.step(change, change.op, "contract", 81, "brief", sql)
        yield step if named is None else replace(step, parts=(*step.parts, self.s.part(named, "drop_index")))

    def _validate_constraint(self, change: Change) -> Iterator[Step]:
        if given(change.after)["valid"] == "no":
            return
        kind = given(change.after)["kind"]
        probe = self._check_probe(change) if kind == "c" else self._reference_probe(change) if kind == "f" else None
        sql = [self._alter(change, f"VALIDATE CONSTRAINT {quoted(change.name)}")]
        yield self.s.step(change, "validate_constraint", "contract", 92, "alone", sql,
                          probes=[probe] if probe else [])  # fmt: skip

    def _rename_constraint(self, change: Change) -> Iterator[Step]:
        old, new = quoted(given(change.before)["name"]), quoted(change.name)
        sql = [self._alter(change, f"RENAME CONSTRAINT {old} TO {new}")]
        undo = [self._alter(change, f"RENAME CONSTRAINT {new} TO {old}")]
        yield self.s.step(change, "rename_constraint", "expand", 12, "brief", sql, undo)

    # indexes

    def _add_index(self, change: Change, label: str = "") -> Iterator[Step]:
        facts = given(change.after)
        is_unique = "unique" in facts
        is_late = is_unique or any(
            t == change.table and re.search(rf"\b{re.escape(n)}\b", facts["definition"]) for t, n in self.touched
        )
        build = create_index(change.table, change.name, facts, concurrently=True)
        undo = [f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(change.name)}"]
        yield self.s.step(
            change, "add_unique_index" if is_unique else "add_index", "contract" if is_late else "expand", 76,
            "outside", [*words_needed([facts]), build], undo, probes=_index_probes(self.s, change, facts), label=label,
        )  # fmt: skip

    def _change_index(self, change: Change) -> Iterator[Step]:
        facts, temporary = given(change.after), cut(f"{OWN}new_{change.name}")
        build = create_index(change.table, temporary, facts, concurrently=True)
        undo = [f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(temporary)}"]
        yield self.s.step(change, "change_index", "contract", 76, "outside", [*words_needed([facts]), build], undo,
                          probes=_index_probes(self.s, change, facts), label="build index of change_index")  # fmt: skip
        drop = [f"DROP INDEX CONCURRENTLY {quoted(change.name)}"]
        yield self.s.step(change, "change_index", "contract", 77, "outside", drop, label="drop old of change_index")
        rename = [f"ALTER INDEX {quoted(temporary)} RENAME TO {quoted(change.name)}"]
        yield self.s.step(change, "change_index", "contract", 78, "brief", rename, label="finish change_index")

    def _drop_index(self, change: Change) -> Iterator[Step]:
        if any(f"add_{kind}:{change.subject}" in self.changes for kind in ("unique", "primary_key")):
            return  # it gives its name to a constraint, which takes it away
        undo = [create_index(change.table, change.name, given(change.before), concurrently=True)]
        sql = [f"DROP INDEX CONCURRENTLY {quoted(change.name)}"]
        yield self.s.step(change, "drop_index", "contract", 95, "outside", sql, undo)

    def _rebuild_index(self, change: Change) -> Iterator[Step]:
        sql = [f"DROP INDEX CONCURRENTLY {quoted(change.name)}"]
        yield self.s.step(change, "rebuild_index", "contract", 75, "outside", sql, label="drop invalid of")
        build = [create_index(change.table, change.name, given(change.after), concurrently=True)]
        yield self.s.step(change, "rebuild_index", "contract", 76, "outside", build,
                          probes=_index_probes(self.s, change, given(change.after)))  # fmt: skip

    def _rename_index(self, change: Change) -> Iterator[Step]:
        old, new = quoted(given(change.before)["name"]), quoted(change.name)
        sql, undo = [f"ALTER INDEX {old} RENAME TO {new}"], [f"ALTER INDEX {new} RENAME TO {old}"]
        yield self.s.step(change, "rename_index", "expand", 12, "brief", sql, undo)


def cast_of(change: Change) -> Cast:
    """How a change of type is done."""
    return cast(given(change.before)["type"], given(change.after)["type"])


def names_in(columns: str) -> list[str]:
    """The names of a list as SQL spells it."""
    found = re.findall(r'"((?:[^"]|"")*)"|([^,\s]+)', columns)
    return [a.replace('""', '"') or b for a, b in found]


def key_of(situation: Situation, table: str) -> tuple[str, ...]:
    """The columns of the primary key, () without one."""
    found = next((f for f in situation.have.of("constraint", table).values() if f["kind"] == "p"), None)
    return tuple(names_in(found["columns"])) if found else ()


def _duplicates(situation: Situation, change: Change, names: Sequence[str], touched: set[tuple[str, str]]) -> Probe:
    def build(table: str, columns: Sequence[str]) -> str:
        listed = ", ".join(quoted(c) for c in columns)
        given = " AND ".join(f"{quoted(c)} IS NOT NULL" for c in columns)
        inner = f"SELECT FROM {quoted(table)} WHERE {given} GROUP BY {listed} HAVING count(*) > 1"
        return f"SELECT count(*) FROM ({inner}) d"

    says = f"values of {', '.join(names)} stand in more than one row of {change.table}"
    return situation.probe(build, change.table, names, says, "make these values unique, or change the model")


def _index_probes(situation: Situation, change: Change, facts: Facts) -> list[Probe]:
    found = re.fullmatch(r"\w+ \((.*?)\)( WHERE .*)?", facts["definition"])
    if "unique" not in facts or found is None:
        return []
    listed = ", ".join(re.sub(r" (ASC|DESC|NULLS (FIRST|LAST))\b", "", part) for part in found[1].split(", "))
    inner = f"SELECT FROM {quoted(change.table)}{found[2] or ''} GROUP BY {listed} HAVING count(*) > 1"
    sql = f"SELECT count(*) FROM ({inner}) d"
    is_same = situation.names.table(change.table) == change.table and all(
        n in situation.live.of("column", change.table) for n in names_in(listed)
    )
    says = f"values of {listed} stand in more than one row of {change.table}"
    return [situation.probe_text(sql, sql if is_same else None, says, "make these values unique")]
