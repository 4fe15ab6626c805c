"""Two snapshots become changes, sorted, each with what was and what shall be. Knows nothing of statements or risks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runner.migrate.snapshot import Facts, ItemKind, Snapshot, is_named

KINDS = {"c": "check", "f": "foreign_key", "u": "unique", "p": "primary_key", "x": "exclusion"}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `op` is a verb of the risk catalogue; for a rename `name` is the new name and `before` holds the
    old one."""

    op: str
    table: str
    name: str = ""
    before: Facts | None = None
    after: Facts | None = None

    @property
    def subject(self) -> str:
        """`table.name`, or the table."""
        return f"{self.table}.{self.name}" if self.name else self.table

    @property
    def id(self) -> str:
        """`op:subject`, as `--allow` takes it."""
        return f"{self.op}:{self.subject}"


def compare(have: Snapshot, want: Snapshot) -> list[Change]:
    """The changes that lead from one to the other, in the order of tables, kinds and names."""
    changes: list[Change] = []
    for table in sorted(have.tables | want.tables):
        if table not in have.tables:
            changes.append(Change("create_table", table))
        elif table not in want.tables:
            changes.append(Change("drop_table", table))
        else:
            changes += _table(table, have, want)
            changes += _columns(table, have, want)
            changes += _named("constraint", table, have, want)
            changes += _named("index", table, have, want)
    return changes


def _table(table: str, have: Snapshot, want: Snapshot) -> Iterator[Change]:
    before, after = have.items["table", table, ""], want.items["table", table, ""]
    if before.get("options") != after.get("options"):
        yield Change("change_options", table, "", before, after)
    if before.get("comment") != after.get("comment"):
        yield Change("set_comment", table, "", before, after)
    if any(before.get(fact) != after.get(fact) for fact in ("rows", "policy")):
        yield Change("set_row_security" if "policy" in after else "drop_row_security", table, "", before, after)


def _columns(table: str, have: Snapshot, want: Snapshot) -> Iterator[Change]:
    there, wanted = have.of("column", table), want.of("column", table)
    for name in sorted({*there, *wanted}):
        if name not in there:
            yield Change("add_column", table, name, None, wanted[name])
        elif name not in wanted:
            yield Change("drop_column", table, name, there[name], None)
        else:
            for op in _column_ops(there[name], wanted[name]):
                yield Change(op, table, name, there[name], wanted[name])


def _column_ops(before: Facts, after: Facts) -> Iterator[str]:
    if before["type"] != after["type"]:
        yield "change_type"
    elif before.get("collation") != after.get("collation"):
        yield "change_collation"
    if before.get("generated") != after.get("generated"):
        yield "change_generated"
    if before.get("identity") != after.get("identity"):
        yield "set_identity" if "identity" in after else "drop_identity"
    elif before.get("default") != after.get("default"):
        yield "set_default" if "default" in after else "drop_default"
    if before["null"] != after["null"]:
        yield {"yes": "drop_not_null", "unproved": "drop_not_null"}.get(after["null"], "set_not_null")


def _named(kind: ItemKind, table: str, have: Snapshot, want: Snapshot) -> Iterator[Change]:
    there, wanted = have.of(kind, table), want.of(kind, table)
    gone = {name: facts for name, facts in there.items() if name not in wanted}
    new = {name: facts for name, facts in wanted.items() if name not in there}
    renamed = _renamed(gone, new)
    for name in sorted({*there, *wanted}):
        if name in renamed:
            yield Change(f"rename_{kind}", table, name, {"name": renamed[name]}, new[name])
        elif name in new:
            yield Change(f"add_{_word(kind, new[name])}", table, name, None, new[name])
        elif name in gone:
            if name not in renamed.values():
                yield Change(f"drop_{_word(kind, gone[name])}", table, name, gone[name], None)
        elif there[name] != wanted[name]:
            yield from _changed(kind, table, name, there[name], wanted[name])


def _changed(kind: ItemKind, table: str, name: str, before: Facts, after: Facts) -> Iterator[Change]:
    if {**before, "valid": ""} == {**after, "valid": ""}:
        yield Change("validate_constraint" if kind == "constraint" else "rebuild_index", table, name, before, after)
    elif before.get("kind") == after.get("kind"):
        yield Change(f"change_{_word(kind, after)}", table, name, before, after)
    else:
        yield Change(f"drop_{_word(kind, before)}", table, name, before, None)
        yield Change(f"add_{_word(kind, after)}", table, name, None, after)


def _renamed(gone: Mapping[str, Facts], new: Mapping[str, Facts]) -> dict[str, str]:
    """New name → old name of what differs by its name only; only names carry no data, so nobody is asked."""
    found: dict[str, str] = {}
    for name, facts in new.items():
        old = next((n for n, f in gone.items() if f == facts and n not in found.values() and is_named(n)), None)
        if old is not None and is_named(name):
            found[name] = old
    return found


def _word(kind: ItemKind, facts: Facts) -> str:
    return "index" if kind == "index" else KINDS[facts["kind"]]
