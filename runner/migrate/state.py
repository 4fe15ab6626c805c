"""The database at hand, and what of it is dfrun's business: its own tables, the models', and what a hint names.

What was made by hand is told apart, so that no plan reverts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner.migrate import sqlite
from runner.migrate.connection import Live
from runner.migrate.history import Recorded
from runner.migrate.plan import MigrationPlan
from runner.migrate.scratch import read
from runner.migrate.snapshot import OWN, Key, Snapshot
from runner.migrate.sqlite import Attached
from runner.migrate.wanted import Hint, Wanted


@dataclass(frozen=True, slots=True)
class State:
    """The database at hand: everything that is there, what of it is dfrun's business, what was made by hand."""

    full: Snapshot
    foreign: frozenset[Key]
    attached: tuple[Attached, ...] = ()

    @property
    def managed(self) -> Snapshot:
        """What plans are about."""
        return self.full.visible.without(self.foreign)


async def read_state(live: Live, wanted: Wanted, want: Snapshot, recorded: Recorded) -> State:
    """The managed tables as they are: those of the models, those that history knows, and those that a hint names."""
    known = recorded.known
    hinted = {old for hint in wanted.hints if hint.kind == "table" for old in hint.old}
    tables = frozenset(want.tables | known.tables | hinted)
    kept = {b.kept for m in recorded.migrations for b in m.backups if b.kind in ("trash_table", "shadow")}
    full = await read(live, tables | kept)
    foreign = frozenset(_foreign(full.visible, want, known, wanted.hints))
    attached = tuple(await sqlite.attached(live)) if live.database == "sqlite" else ()
    return State(full, foreign, attached)


def _foreign(full: Snapshot, want: Snapshot, known: Snapshot, hints: Sequence[Hint]) -> Iterable[Key]:
    """What was made by hand: neither wanted nor recorded, and no source of a rename."""
    sources = {("column", h.table, old) for h in hints if h.kind == "column" for old in h.old}
    sources |= {("index", h.table, old) for h in hints if h.kind == "index" for old in h.old}
    renamed = {old: h.table for h in hints if h.kind == "table" for old in h.old}
    for key in full.items:
        kind, table, name = key
        now = (kind, renamed.get(table, table), name)
        if table not in known.tables and table not in renamed and kind == "table":
            continue
        is_known = key in known.items or now in want.items or now in sources or key in want.items
        if not is_known and not name.startswith(OWN):
            if table in renamed and table not in known.tables:
                continue
            yield key


def foreign_after(state: State, plan: MigrationPlan) -> frozenset[Key]:
    """What was made by hand, by the names that it has once the plan's renames are done."""
    renamed = {s.parts[0].change: s for s in plan.steps if s.rank == 10 or s.op.startswith("rename_table")}
    tables = {}
    for step in renamed.values():
        if step.op.startswith(("rename_table", "restore_table")):
            old = next(iter(step.locks))
            tables[old] = step.tables[0]
    mapped = {(kind, tables.get(table, table), name) for kind, table, name in state.foreign}
    # what was made by hand and is reverted now is part of the plan
    return (state.foreign | mapped) - plan.before.items.keys()
