"""What migrations kept instead of losing it: listed, and purged when its time has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runner.migrate import history, postgresql, sqltext
from runner.migrate.connection import Live
from runner.migrate.history import Recorded
from runner.migrate.scratch import read
from runner.migrate.snapshot import canonical
from runner.migrate.step import Backup


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing in the trash, with the migration that put it there. `rows` is None for a column."""

    migration: int
    backup: Backup
    since: str
    rows: int | None


async def list_kept(live: Live, recorded: Recorded, older_than: timedelta) -> list[Kept]:
    """What is still there of migrations that ended longer ago than `older_than`; unfinished ones keep theirs."""
    quote = sqltext.quoted if live.database == "sqlite" else postgresql.quoted
    limit = (datetime.now(UTC) - older_than).isoformat(timespec="milliseconds")
    full = await read(live, None)
    found: list[Kept] = []
    seen: set[str] = set()
    for m in recorded.migrations:
        if m.status in history.UNFINISHED or (m.finished_at or m.started_at) > limit:
            continue
        for backup in m.backups:
            if backup.kind == "file":
                continue  # it is the user's
            is_column = backup.kind == "trash_column"
            if is_column:
                is_there = ("column", backup.table, backup.kept) in full.items
            else:
                is_there = backup.kept in full.tables and backup.kept not in seen
                seen.add(backup.kept)
            if is_there:
                rows = None if is_column else int(await live.value(f"SELECT count(*) FROM {quote(backup.kept)}"))
                found.append(Kept(m.id, backup, m.finished_at or m.started_at, rows))
    return found


async def purge(live: Live, kept: Sequence[Kept], recorded: Recorded) -> None:
    """Drop these for good, in the transaction at hand, and forget them in the ledger."""
    quote = sqltext.quoted if live.database == "sqlite" else postgresql.quoted
    gone = {(k.migration, k.backup) for k in kept}
    for each in kept:
        backup = each.backup
        if backup.kind == "trash_column":
            await live.execute(f"ALTER TABLE {quote(backup.table)} DROP COLUMN {quote(backup.kept)}")
        else:
            await live.execute(f"DROP TABLE IF EXISTS {quote(backup.kept)}")
    dropped = {b.kept for _, b in gone if b.kind != "trash_column"}
    table = history.migrations_of(live)
    for m in recorded.migrations:
        left = [b for b in m.backups if (m.id, b) not in gone and b.kept not in dropped]
        if len(left) < len(m.backups):
            text = canonical([{"kind": b.kind, "table": b.table, "name": b.name, "kept": b.kept} for b in left])
            await live.run(table.update().where(table.c.id == m.id).values(backup_json=text))
