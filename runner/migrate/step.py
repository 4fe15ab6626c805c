"""What a plan consists of: steps, each with its statements, its risk, its probes and what it keeps back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from runner.migrate.risks import Level, Risk, highest

Phase = Literal["expand", "backfill", "contract"]
PHASES: tuple[Phase, ...] = ("expand", "backfill", "contract")
Mode = Literal["brief", "alone", "outside", "batches"]
"""brief: shares a transaction with its neighbours; alone: has one of its own; outside: runs in none (CONCURRENTLY);
batches: a transaction a batch."""


@dataclass(frozen=True, slots=True)
class Part:
    """One change that a step carries out, or helps to: `op:subject`, with its rule of the catalogue."""

    change: str
    rule: str
    level: Level
    says: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A count of rows that must be 0. `now` asks the same before the plan's renames; None where nothing can be asked
    yet."""

    sql: str
    says: str
    fix: str = ""
    now: str | None = None


@dataclass(frozen=True, slots=True)
class Backup:
    """What a step keeps instead of losing it: `kept` is the column or table that has it. A `file` belongs to the whole
    migration: `name` is its name, `kept` its size in bytes, `table` is empty."""

    kind: Literal["trash_column", "trash_table", "shadow", "file"]
    table: str
    name: str
    kept: str


@dataclass(frozen=True, slots=True)
class Batch:
    """An UPDATE that goes over a table by its key; `{range}` in the statement is the batch at hand."""

    table: str
    key: tuple[str, ...]
    assignments: str
    where: str
    rows: int
    pause_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `group` names the transaction it shares, "none" where it has none; `after` is the fingerprint that the
    managed tables must have when its group is done."""

    op: str
    parts: tuple[Part, ...]
    phase: Phase
    rank: int
    mode: Mode
    sql: tuple[str, ...]
    undo: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    backups: tuple[Backup, ...] = ()
    batch: Batch | None = None
    locks: Mapping[str, str] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    risk: Risk | None = None
    tables: tuple[str, ...] = ()
    group: str = ""
    after: str = ""

    @property
    def level(self) -> Level:
        """The highest of its parts."""
        return highest(*(part.level for part in self.parts))

    @property
    def is_written(self) -> bool:
        """Whether its statement was written by hand."""
        return self.parts[0].rule in ("backfill", "sql", "sql_proved")

    def body(self, number: int) -> dict[str, object]:
        """The step as the plan file has it; only what decides about what is done."""
        risk = self.risk
        assert risk is not None, f"{self.op} has no risk"
        told: dict[str, object] = {
            "id": number, "op": self.op, "phase": self.phase, "sql": list(self.sql), "undo": list(self.undo),
            "tx": self.group, "mode": self.mode, "tables": list(self.tables), "locks": dict(sorted(self.locks.items())),
            "rewrites": list(self.rewrites),
            "risk": {"level": self.level, "data": risk.data, "lock": risk.lock, "compat": risk.compat,
                     "rule": risk.rule},
            "changes": [{"change": p.change, "rule": p.rule, "level": p.level, "says": p.says} for p in self.parts],
            "probes": [{"sql": p.sql, "must_be": 0, "says": p.says, "fix": p.fix} for p in self.probes],
            "backups": [{"kind": b.kind, "table": b.table, "name": b.name, "kept": b.kept} for b in self.backups],
            "after": self.after,
        }  # fmt: skip
        if self.batch is not None:
            batch = self.batch
            told["batch"] = {"table": batch.table, "key": list(batch.key), "set": batch.assignments,
                             "where": batch.where, "rows": batch.rows, "pause_ms": batch.pause_ms}  # fmt: skip
        return told


def step_from(body: Mapping[str, Any]) -> Step:
    """The step that `Step.body` wrote."""
    risk, batch = body["risk"], body.get("batch")
    parts = tuple(Part(p["change"], p["rule"], p["level"], p["says"]) for p in body["changes"])
    return Step(
        body["op"], parts, body["phase"], 0, body["mode"], tuple(body["sql"]), tuple(body["undo"]),
        tuple(Probe(p["sql"], p["says"], p["fix"]) for p in body["probes"]),
        tuple(Backup(b["kind"], b["table"], b["name"], b["kept"]) for b in body["backups"]),
        Batch(batch["table"], tuple(batch["key"]), batch["set"], batch["where"], batch["rows"], batch["pause_ms"])
        if batch else None,
        body["locks"], tuple(body["rewrites"]),
        Risk(risk["rule"], risk["data"], risk["lock"], risk["compat"], "", ""), tuple(body["tables"]),
        body["tx"], body["after"],
    )  # fmt: skip


def grouped(steps: list[Step]) -> list[Step]:
    """The steps with the transactions they share: neighbours that are brief go together."""
    found: list[Step] = []
    number = 0
    for step in steps:
        joins = bool(found) and step.mode == "brief" and found[-1].mode == "brief" and found[-1].phase == step.phase
        if not joins:
            number += 1
        name = "none" if step.mode in ("outside", "batches") else f"group-{number}"
        found.append(replace(step, group=name))
    return found


def batches_of(steps: list[Step]) -> list[list[Step]]:
    """The steps by transaction; those without one stand alone."""
    found: list[list[Step]] = []
    for step in steps:
        if found and step.group != "none" and found[-1][0].group == step.group:
            found[-1].append(step)
        else:
            found.append([step])
    return found


def risk_of(steps: list[Step]) -> Level:
    """The highest level of all steps."""
    return highest(*cast("list[Level]", [step.level for step in steps]))
