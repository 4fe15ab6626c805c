"""What both databases' recipes share: the state they start from, names before and after renames, probes, trash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from runner.migrate.difference import Change
from runner.migrate.risks import Risk, catalogue
from runner.migrate.snapshot import OWN, Facts, Snapshot
from runner.migrate.sqlite import Attached
from runner.migrate.step import Backup, Mode, Part, Phase, Probe, Step
from runner.migrate.wanted import Wanted
from runner.sql.filters import Database
from schemas.names import cut


@dataclass(frozen=True, slots=True)
class Names:
    """What things were called before the plan's renames."""

    tables: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def table(self, name: str) -> str:
        """The table's name before; itself where it was not renamed."""
        return self.tables.get(name, name)

    def column(self, table: str, name: str) -> str:
        """The column's name before."""
        return self.columns.get((table, name), name)


@dataclass(frozen=True, slots=True)
class Situation:
    """Where recipes start: `have` after renames and hand-written steps, `live` as it is in the database now, `want`.

    attached, extra: triggers and views, and what was made by hand; SQLite's rebuilt tables get them back.
    """

    database: Database
    version: int
    live: Snapshot
    have: Snapshot
    want: Snapshot
    names: Names
    wanted: Wanted
    key: str
    attached: tuple[Attached, ...] = ()
    extra: Snapshot = field(default_factory=Snapshot)

    @property
    def fills(self) -> Mapping[tuple[str, str], str]:
        """SQL for the rows that are there when a column is added that needs a value and has no default."""
        return self.wanted.fills

    @property
    def on_drop(self) -> Mapping[str, str]:
        """`drop` or `forbid` by table; the others go to the trash."""
        return self.wanted.on_drop

    def risk(self, rule: str) -> Risk:
        """The rule of the catalogue."""
        return catalogue(self.database)[rule]

    def part(self, change: Change, rule: str, says: str = "") -> Part:
        """The part of a step that carries out this change."""
        risk = self.risk(rule)
        return Part(change.id, rule, risk.level, says or risk.says)

    def step(
        self, change: Change, rule: str, phase: Phase, rank: int, mode: Mode, sql: Sequence[str],
        undo: Sequence[str] = (), *, probes: Sequence[Probe] = (), backups: Sequence[Backup] = (), says: str = "",
        label: str = "", locks: Mapping[str, str] | None = None, others: Sequence[str] = (),
    ) -> Step:  # fmt: skip
        """A step for one change."""
        risk = self.risk(rule)
        return Step(
            op=f"{label or change.op} {change.subject}", parts=(self.part(change, rule, says),), phase=phase,
            rank=rank, mode=mode, sql=tuple(sql), undo=tuple(undo), probes=tuple(probes), backups=tuple(backups),
            locks={change.table: risk.locks} if locks is None else locks, risk=risk, tables=(change.table, *others),
        )  # fmt: skip

    def probe(
        self, build: Callable[[str, Sequence[str]], str], table: str, columns: Sequence[str], says: str, fix: str = ""
    ) -> Probe:
        """A probe over columns of one table, spelled for the time of the step and for now."""
        old = self.names.table(table)
        before = [self.names.column(table, column) for column in columns]
        there = self.live.of("column", old)
        now = build(old, before) if all(name in there for name in before) else None
        return Probe(build(table, columns), says, fix, now)

    def probe_text(self, sql: str, now: str | None, says: str, fix: str = "") -> Probe:
        """A probe whose text for now is known."""
        return Probe(sql, says, fix, now)

    def trash(self, name: str) -> str:
        """The name of a thing in the trash of this plan."""
        return cut(f"{OWN}trash_{self.key}_{name}")

    def shadow(self, table: str, name: str) -> str:
        """The name of a table that keeps the values before a change."""
        return cut(f"{OWN}bak_{self.key}_{table}_{name}")


def given(facts: Facts | None) -> Facts:
    """The side of a change that a recipe reads."""
    assert facts is not None, "a change has the side that its recipe reads"
    return facts
