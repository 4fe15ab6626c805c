"""What a user reads about migrations: plans, the ledger, drift. Text only; printing and exit codes are `cli`'s."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass

from runner.migrate.history import Migration
from runner.migrate.metrics import Metrics
from runner.migrate.plan import MigrationPlan
from runner.migrate.rollback import Rollback
from runner.migrate.status import Drift, Status
from runner.migrate.step import Step, batches_of
from runner.migrate.trash import Kept

UP_TO_DATE = "nothing to do: the tables are as the models say"


def plan_text(plan: MigrationPlan) -> str:
    """The plan as a table, what stands in its way, and its SQL."""
    told = [f"by hand: {line}" for line in plan.drifted]
    if not plan.steps:
        return "\n".join([*told, *([] if plan.blocked else [UP_TO_DATE])])
    told += [headline(plan), "", *_aligned(_rows(plan)), ""]
    for step in plan.steps:
        told += [f"{step.op}:", *(f"  {_shortened(sql)};" for sql in _sql(step))]
    told += [f"note: {note}" for note in plan.notes]
    return "\n".join(told)


def headline(plan: MigrationPlan) -> str:
    """Its name, its size and its risk."""
    count = len(plan.changes)
    changes = (
        f"{count} change{'' if count == 1 else 's'} in {len(plan.steps)} step{'' if len(plan.steps) == 1 else 's'}"
    )
    return f"plan {plan.hash[7:15]} for {plan.database}: {changes}, {plan.level}"


def _rows(plan: MigrationPlan) -> list[list[str]]:
    rows = [["#", "step", "what happens", "locks", "rows", "risk", "rule"]]
    for number, step in enumerate(plan.steps, 1):
        locks = ", ".join(f"{mode} {table}" for table, mode in sorted(step.locks.items()) if mode != "none") or "-"
        count = plan.evidence.rows.get(step.tables[0]) if step.tables else None
        says = "; ".join(dict.fromkeys(part.says for part in step.parts))
        if step.op.startswith("rebuild_table"):
            says = "rebuilt: " + ", ".join(part.change for part in step.parts)
        if any(b.kind == "shadow" for b in step.backups):
            says += "; the values before are kept"
        size = plan.evidence.bytes.get(step.tables[0], 0) if step.tables else 0
        if step.rewrites:
            says += f"; rewrites {_size(size)}" if size else "; rewrites the table"
        rule = ", ".join(dict.fromkeys(part.rule for part in step.parts))
        rows.append([str(number), step.op, says, locks, "" if count is None else str(count), step.level, rule])
    return rows


def _size(size: int) -> str:
    return f"{size / 1_048_576:.0f} MB" if size >= 1_048_576 else f"{max(1, size // 1024)} kB"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _sql(step: Step) -> list[str]:
    if step.batch is None:
        return list(step.sql)
    return [f"{sql}  -- in batches of {step.batch.rows} rows by {', '.join(step.batch.key)}" for sql in step.sql]


def _shortened(sql: str) -> str:
    """The statement; of a function with its tables of letters, how it begins."""
    return sql if len(sql) < 4_000 else f"{sql.splitlines()[0]} …  -- {len(sql):,} characters, all of them with -o sql"


def plan_sql(plan: MigrationPlan) -> str:
    """The plan as a script: what `psql` or `sqlite3` would take, transactions and notes included."""
    told = [f"-- {headline(plan)}", f"-- {plan.hash}"]
    if plan.database == "sqlite":
        told += ["PRAGMA foreign_keys=OFF;"]
    for group in batches_of(list(plan.steps)):
        is_whole = group[0].group != "none"
        begin = "BEGIN IMMEDIATE;" if plan.database == "sqlite" else "BEGIN;"
        told += ["", begin] if is_whole else [""]
        if is_whole and plan.database == "postgresql":
            told.append("SET LOCAL lock_timeout = '2s';")
        for step in group:
            told.append(f"-- {step.op}: {step.level}")
            told += [f"-- must find none: {probe.sql};" for probe in step.probes]
            told += [f"{sql};" for sql in step.sql]
        told += ["COMMIT;"] if is_whole else []
    if plan.database == "sqlite":
        told += ["PRAGMA foreign_keys=ON;"]
    return "\n".join(told)


def plan_markdown(plan: MigrationPlan) -> str:
    """The plan for a pull request."""
    if not plan.steps:
        return UP_TO_DATE
    header, *rows = _rows(plan)
    told = [f"### {headline(plan)}", "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    told += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    told += ["", *(f"- **{problem.code}** {problem.what}. {problem.fix}" for problem in plan.blocked)]
    return "\n".join([*told, "", "```sql", plan_sql(plan), "```"])


def plan_json(plan: MigrationPlan) -> str:
    """The plan file's content as one JSON document, with what blocks it."""
    return to_json(plan_document(plan))


def plan_document(plan: MigrationPlan) -> dict[str, object]:
    """The same as data."""
    return {
        "hash": plan.hash, "body": plan.body(),
        "evidence": {"rows": dict(plan.evidence.rows), "probes": dict(plan.evidence.found)},
        "drifted": list(plan.drifted),
        "blocked": [{"code": p.code, "what": p.what, "why": p.why, "fix": p.fix} for p in plan.blocked],
    }  # fmt: skip


def history_text(migrations: Sequence[Migration], metrics: Metrics) -> str:
    """Every migration on a line, the newest first, and what they add up to."""
    if not migrations:
        return "no migration was applied here yet"
    rows = [["id", "kind", "status", "risk", "plan", "started", "ms", "by"]]
    for m in reversed(migrations):
        took = "" if m.duration_ms is None else str(m.duration_ms)
        rows.append(
            [
                str(m.id),
                m.kind,
                m.status,
                m.risk,
                m.plan_hash[7:15],
                m.started_at[:19],
                took,
                f"{m.applied_by}@{m.host}",
            ]
        )
    told = _aligned(rows)
    for m in migrations:
        if m.error:
            told.append(f"{m.id}: {m.error}")
    return "\n".join([*told, "", metrics.text()])


def to_json(value: object) -> str:
    """One document; dataclasses as mappings."""

    def plain(inner: object) -> object:
        if is_dataclass(inner) and not isinstance(inner, type):
            return asdict(inner)
        return dict(inner) if isinstance(inner, Mapping) else str(inner)

    return json.dumps(value, ensure_ascii=False, indent=2, default=plain)


def migration_record(m: Migration) -> dict[str, object]:
    """A migration for machines; no statement, no value."""
    return {
        "id": m.id, "kind": m.kind, "status": m.status, "risk": m.risk, "plan": m.plan_hash, "from": m.from_fp,
        "to": m.to_fp, "started_at": m.started_at, "finished_at": m.finished_at, "duration_ms": m.duration_ms,
        "lock_wait_ms": m.lock_wait_ms, "retries": m.retries, "applied_by": m.applied_by, "host": m.host,
        "error": m.error,
        "backups": [{"file": b.name, "bytes": int(b.kept)} for b in m.backups if b.kind == "file"],
    }  # fmt: skip


def rollback_text(found: Rollback) -> str:
    """What a rollback does and what it loses."""
    taken = ", ".join(str(m.id) for m in found.target.migrations)
    told = [f"takes back migration {taken}", plan_text(found.plan), ""]
    marks = {"exact": "as before", "with_loss": "with loss", "no": "not possible"}
    told += [
        f"{marks[loss.reversible]}: {loss.step}" + (f" ({loss.lost})" if loss.lost else "") for loss in found.steps
    ]
    told.append("fully reversible" if found.fully_reversible else "not fully reversible")
    return "\n".join(told)


def rollback_json(found: Rollback) -> str:
    """The same for machines."""
    return to_json({
        "migrations": [m.id for m in found.target.migrations], "plan": found.plan.hash,
        "fully_reversible": found.fully_reversible, "data_loss_warning": found.data_loss_warning,
        "steps": [{"step": s.step, "reversible": s.reversible, "lost": s.lost} for s in found.steps],
        "blocked": [p.what for p in found.plan.blocked],
    })  # fmt: skip


def drift_text(found: Drift) -> str:
    """Three lists; `none` where one is empty."""
    told = []
    for title, lines in (
        ("changed by hand", found.by_hand),
        ("pending", found.pending),
        ("unmanaged", found.unmanaged),
    ):
        told += [f"{title}:", *(f"  {line}" for line in lines or ("none",))]
    return "\n".join(told)


def kept_text(kept: Sequence[Kept]) -> str:
    """What lies in the trash."""
    if not kept:
        return "the trash is empty"
    rows = [["migration", "what", "kept as", "rows", "since"]]
    for k in kept:
        what = {"trash_column": "column", "trash_table": "table", "shadow": "values of"}[k.backup.kind]
        name = k.backup.table if k.backup.kind == "trash_table" else f"{k.backup.table}.{k.backup.name}"
        rows.append(
            [str(k.migration), f"{what} {name}", k.backup.kept, "" if k.rows is None else str(k.rows), k.since[:10]]
        )
    return "\n".join(_aligned(rows))


def status_text(found: Status) -> str:
    """Where the database stands, in lines."""
    told = []
    if found.last is None:
        told.append("no migration was applied here yet")
    else:
        told.append(f"last: migration {found.last.id}, {found.last.status}, {found.last.started_at[:19]}")
    if found.unfinished is not None:
        m = found.unfinished
        told.append(f"unfinished: migration {m.id}, {found.steps_done} of {len(m.steps)} steps are done")
    told += [f"by hand: {line}" for line in found.pending.drifted]
    if found.pending.blocked:
        told += [f"blocked: {problem.what}" for problem in found.pending.blocked]
    elif found.pending.steps:
        told.append(f"pending: {headline(found.pending)}")
    else:
        told.append(UP_TO_DATE)
    told.append("the lock is held" if found.is_locked else "the lock is free")
    told += [
        f"waiting {w.position}: {w.requested_by} since {w.requested_at[:19]}, priority {w.priority}"
        for w in found.waiting
    ]
    return "\n".join(told)


def status_json(found: Status) -> str:
    """Where the database stands, for machines."""
    return to_json({
        "last": migration_record(found.last) if found.last else None,
        "unfinished": found.unfinished.id if found.unfinished else None, "steps_done": found.steps_done,
        "pending": found.pending.changes, "risk": found.pending.level if found.pending.steps else None,
        "blocked": [problem.what for problem in found.pending.blocked], "drifted": list(found.pending.drifted),
        "locked": found.is_locked,
        "waiting": [{"position": w.position, "priority": w.priority, "requested_at": w.requested_at,
                     "requested_by": w.requested_by} for w in found.waiting],
    })  # fmt: skip
