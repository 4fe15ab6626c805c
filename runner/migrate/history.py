"""The migration ledger: what was applied, by whom, from which state to which; kept in the database it is about.

Its tables are `dfrun.migrations` and `dfrun.migration_steps` on PostgreSQL, `_dfrun_migrations` and
`_dfrun_migration_steps` on SQLite. One ledger serves all schemas of a database; `scope` tells them apart.
"""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from runner import __version__
from runner.migrate.connection import Live
from runner.migrate.snapshot import Snapshot, canonical
from runner.migrate.step import Backup
from runner.migrate.wanted import dialect_of
from runner.sql.filters import Database

DONE = ("applied", "baseline")
UNFINISHED = ("applying", "partial")


def _tables(database: Database) -> tuple[sa.Table, sa.Table, sa.Table]:
    metadata = sa.MetaData(schema="dfrun" if database == "postgresql" else None)
    prefix = "" if database == "postgresql" else "_dfrun_"
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    moment = sa.Text()
    migrations = sa.Table(
        f"{prefix}migrations", metadata,
        sa.Column("id", whole, sa.Identity(), primary_key=True),
        sa.Column("scope", sa.Text, nullable=False), sa.Column("kind", sa.Text, nullable=False),
        sa.Column("plan_hash", sa.Text, nullable=False), sa.Column("from_fp", sa.Text, nullable=False),
        sa.Column("to_fp", sa.Text, nullable=False), sa.Column("status", sa.Text, nullable=False),
        sa.Column("risk", sa.Text, nullable=False), sa.Column("before_json", sa.Text, nullable=False),
        sa.Column("after_json", sa.Text, nullable=False), sa.Column("meta_json", sa.Text, nullable=False),
        sa.Column("plan_json", sa.Text, nullable=False), sa.Column("backup_json", sa.Text, nullable=False),
        sa.Column("started_at", moment, nullable=False), sa.Column("finished_at", moment),
        sa.Column("duration_ms", whole), sa.Column("lock_wait_ms", whole), sa.Column("retries", whole),
        sa.Column("applied_by", sa.Text), sa.Column("host", sa.Text), sa.Column("dfrun_version", sa.Text),
        sa.Column("error", sa.Text),
    )  # fmt: skip
    steps = sa.Table(
        f"{prefix}migration_steps", metadata,
        sa.Column("migration_id", whole, primary_key=True, autoincrement=False),
        sa.Column("step", whole, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Text, nullable=False), sa.Column("started_at", moment), sa.Column("duration_ms", whole),
        sa.Column("rows", whole), sa.Column("checkpoint", sa.Text), sa.Column("error", sa.Text),
    )  # fmt: skip
    queue = sa.Table(
        f"{prefix}migration_queue", metadata,
        sa.Column("id", whole, sa.Identity(), primary_key=True),
        sa.Column("scope", sa.Text, nullable=False), sa.Column("priority", whole, nullable=False),
        sa.Column("requested_at", moment, nullable=False), sa.Column("seen_at", moment, nullable=False),
        sa.Column("requested_by", sa.Text),
    )  # fmt: skip
    return migrations, steps, queue


_BY_DATABASE: Mapping[Database, tuple[sa.Table, sa.Table, sa.Table]] = {
    "postgresql": _tables("postgresql"), "sqlite": _tables("sqlite"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meta:
    """What a state remembers beside its tables: the file of models of each table, the hints and hand-written files
    that were carried out (name and hash), and for each table the digest of the statements that wanted it. `takes_back`
    has the migrations that a rollback undoes."""

    sources: Mapping[str, str] = field(default_factory=dict)
    hints: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    takes_back: tuple[int, ...] = ()

    def to_json(self) -> str:
        """As history keeps it."""
        return canonical({"sources": dict(self.sources), "hints": list(self.hints), "written": dict(self.written),
                          "digests": dict(self.digests), "takes_back": list(self.takes_back)})  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Meta:
        """What `to_json` wrote."""
        read = json.loads(text)
        return cls(read["sources"], tuple(read["hints"]), read["written"], read["digests"], tuple(read["takes_back"]))


@dataclass(frozen=True, slots=True)
class Migration:
    """One row of the ledger."""

    id: int
    kind: str
    plan_hash: str
    from_fp: str
    to_fp: str
    status: str
    risk: str
    before: Snapshot
    after: Snapshot
    meta: Meta
    plan_json: str
    backups: tuple[Backup, ...]
    started_at: str
    finished_at: str | None
    duration_ms: int | None
    lock_wait_ms: int | None
    retries: int | None
    applied_by: str
    host: str
    error: str | None

    @property
    def steps(self) -> list[Any]:
        """The steps of its plan, as the plan file has them."""
        return list(json.loads(self.plan_json)["steps"])


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the ledger says the database stands: all of its migrations, oldest first."""

    migrations: tuple[Migration, ...] = ()

    @property
    def last(self) -> Migration | None:
        """The newest migration that says what the managed tables are."""
        return next((m for m in reversed(self.migrations) if m.status in (*DONE, *UNFINISHED)), None)

    @property
    def unfinished(self) -> Migration | None:
        """A migration that was begun and did not end."""
        last = self.last
        return last if last is not None and last.status in UNFINISHED else None

    @property
    def known(self) -> Snapshot:
        """Everything that dfrun made or took over; of an unfinished migration, both its ends."""
        last = self.last
        if last is None:
            return Snapshot()
        return last.before.merged(last.after) if last.status in UNFINISHED else last.after

    @property
    def meta(self) -> Meta:
        """What the last state remembers."""
        return self.last.meta if self.last else Meta()

    def find(self, number: int) -> Migration | None:
        """The migration with this id."""
        return next((m for m in self.migrations if m.id == number), None)


def migrations_of(live: Live) -> sa.Table:
    """The table of migrations."""
    return _BY_DATABASE[live.database][0]


def steps_of(live: Live) -> sa.Table:
    """The table of their steps."""
    return _BY_DATABASE[live.database][1]


def queue_of(live: Live) -> sa.Table:
    """The table of waiting requests."""
    return _BY_DATABASE[live.database][2]


async def is_there(live: Live) -> bool:
    """Whether the ledger exists."""
    if live.database == "postgresql":
        return bool(await live.value("SELECT to_regclass('dfrun.migration_queue') IS NOT NULL"))
    return bool(await live.value("SELECT count(*) FROM sqlite_master WHERE name = '_dfrun_migration_queue'"))


async def create(live: Live) -> None:
    """Create the ledger where it is not there yet; safe when several do so at once."""
    if await is_there(live):
        return
    dialect = dialect_of(live.database)
    texts = [str(CreateTable(t, if_not_exists=True).compile(dialect=dialect)) for t in _BY_DATABASE[live.database]]
    first = ["SELECT pg_advisory_xact_lock(hashtextextended('dfrun ledger', 0))", "CREATE SCHEMA IF NOT EXISTS dfrun"]
    async with live.transaction():
        await live.script([*(first if live.database == "postgresql" else []), *texts])


async def recorded(live: Live) -> Recorded:
    """All migrations of this schema; none where there is no ledger."""
    if not await is_there(live):
        return Recorded()
    table = migrations_of(live)
    light = [column for column in table.c if column.name not in _HEAVY]
    rows = await live.run(sa.select(*light).where(table.c.scope == live.schema).order_by(table.c.id))
    found = Recorded(_settled([_migration(row) for row in rows.mappings()]))
    if found.last is None:
        return found
    whole = await load(live, found.last.id)
    return Recorded(tuple(whole if m.id == whole.id else m for m in found.migrations))


def _settled(migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """The migrations, oldest first, with those that a rollback took back told as such. It is read from the rollback,
    not written to them: one that fails, or whose process dies, has taken nothing back."""
    gone: set[int] = set()
    found: list[Migration] = []
    for migration in reversed(migrations):
        is_gone = migration.id in gone
        if migration.status in DONE and not is_gone:
            gone |= {*migration.meta.takes_back}
        found.append(replace(migration, status="rolled_back") if is_gone else migration)
    return tuple(reversed(found))


async def load(live: Live, number: int) -> Migration:
    """One migration with its plan and both of its states, which `recorded` has of the last one only."""
    table = migrations_of(live)
    row = (await live.run(sa.select(table).where(table.c.id == number))).mappings().one()
    return _migration(row)


_HEAVY = ("before_json", "after_json", "plan_json")


def _migration(row: Mapping[Any, Any]) -> Migration:
    return Migration(
        row["id"], row["kind"], row["plan_hash"], row["from_fp"], row["to_fp"], row["status"], row["risk"],
        _state(row, "before_json"), _state(row, "after_json"), Meta.from_json(row["meta_json"]),
        row.get("plan_json", ""), tuple(Backup(**b) for b in json.loads(row["backup_json"])), row["started_at"],
        row["finished_at"], row["duration_ms"], row["lock_wait_ms"], row["retries"], row["applied_by"], row["host"],
        row["error"],
    )  # fmt: skip


def _state(row: Mapping[Any, Any], name: str) -> Snapshot:
    return Snapshot.from_json(row[name]) if name in row else Snapshot()


async def begin(
    live: Live, kind: str, plan_hash: str, body: Mapping[str, object], before: Snapshot, after: Snapshot, meta: Meta,
    backups: Sequence[Backup], *, status: str = "applying", lock_wait_ms: int = 0,
) -> int:  # fmt: skip
    """Write the row of a migration that starts; its id."""
    row = {
        "scope": live.schema, "kind": kind, "plan_hash": plan_hash, "from_fp": before.fingerprint,
        "to_fp": after.fingerprint, "status": status, "risk": str(body.get("risk", "LOW")),
        "before_json": before.to_json(), "after_json": after.to_json(), "meta_json": meta.to_json(),
        "plan_json": canonical(body), "started_at": now(), "lock_wait_ms": lock_wait_ms, "retries": 0,
        "backup_json": canonical([{"kind": b.kind, "table": b.table, "name": b.name, "kept": b.kept} for b in backups]),
        "applied_by": user(), "host": socket.gethostname(), "dfrun_version": __version__,
        "finished_at": now() if status in DONE else None,
    }  # fmt: skip
    table = migrations_of(live)
    return int((await live.run(table.insert().values(row).returning(table.c.id))).scalar_one())


async def finish(live: Live, number: int, status: str, started: float, *, retries: int = 0, error: str = "") -> None:
    """Write how a migration ended; `started` is of the monotonic clock."""
    import time

    table = migrations_of(live)
    took = round((time.monotonic() - started) * 1000)
    values = {"status": status, "finished_at": now(), "duration_ms": took, "retries": retries, "error": error or None}
    await live.run(table.update().where(table.c.id == number).values(values))


async def write_done(live: Live, migration: int, steps: Sequence[int]) -> None:
    """Write the rows of the steps of one transaction, at its end."""
    rows = [{"migration_id": migration, "step": step, "status": "done", "started_at": now()} for step in steps]
    await live.run(steps_of(live).insert().values(rows))


async def set_status(live: Live, number: int, status: str) -> None:
    """Change the status alone."""
    table = migrations_of(live)
    await live.run(table.update().where(table.c.id == number).values(status=status))


async def write_step(live: Live, migration: int, step: int, status: str, **values: object) -> None:
    """Write or change the row of a step."""
    table = steps_of(live)
    same = sa.and_(table.c.migration_id == migration, table.c.step == step)
    changed = await live.run(table.update().where(same).values(status=status, **values))
    if not cast("Any", changed).rowcount:
        await live.run(
            table.insert().values(migration_id=migration, step=step, status=status, started_at=now(), **values)
        )


async def step_rows(live: Live, migration: int) -> dict[int, Mapping[str, Any]]:
    """The rows of the steps of a migration by their number."""
    table = steps_of(live)
    rows = await live.run(sa.select(table).where(table.c.migration_id == migration))
    return {row["step"]: dict(row) for row in rows.mappings()}


def now() -> str:
    """The time as the ledger keeps it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "?"
