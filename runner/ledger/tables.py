"""The ledger's own tables: schema `dfrun` on PostgreSQL, prefix `_dfrun_` on SQLite. Created when they are missing;
those of a newer dfrun, or changed by hand, are refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.dialects.base import Session
from runner.dialects.store import Store
from runner.dialects.types import column_type
from runner.errors import Problem, TablesError
from runner.sql.filters import Database
from schemas.types import ValueType

VERSION = 1
_TEXT, _WHOLE = sa.Text(), sa.BigInteger().with_variant(sa.INTEGER(), "sqlite")
_BYTES, INSTANT = column_type(ValueType("bytes")), column_type(ValueType("datetime"))
_KEY = ("run_id", "step_id", "kind", "part")


def name(database: Database, table: str) -> str:
    """How a statement calls a table of the ledger."""
    return f"dfrun.{table}" if database == "postgresql" else f"_dfrun_{table}"


def now(database: Database, more_seconds: float = 0) -> str:
    """This moment by the database's clock, so many seconds on, as text of a statement."""
    if database == "postgresql":
        return "clock_timestamp()" + (f" + interval '{more_seconds:f} s'" if more_seconds else "")
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '{more_seconds:+f} seconds')"


@lru_cache(maxsize=2)
def ledger_tables(database: Database) -> dict[str, sa.Table]:
    """The tables by their short name."""
    metadata = sa.MetaData()

    def table(short: str, columns: dict[str, Any], key: tuple[str, ...], *rules: sa.schema.SchemaItem) -> sa.Table:
        made = [
            sa.Column(column, kind if not isinstance(kind, tuple) else kind[0], primary_key=column in key,
                      nullable=isinstance(kind, tuple), autoincrement=False)
            for column, kind in columns.items()
        ]  # fmt: skip
        if database == "postgresql":
            return sa.Table(short, metadata, *made, *rules, schema="dfrun")
        return sa.Table(f"_dfrun_{short}", metadata, *made, *rules, sqlite_strict=True)

    # a type in parentheses allows null
    step = dict.fromkeys(_KEY, _TEXT)
    return {
        "schema_version": table("schema_version", {"version": _WHOLE}, ("version",)),
        "runs": table(
            "runs",
            {
                "run_id": _TEXT, "pipeline": _TEXT, "tenant": _TEXT, "folder": _TEXT, "definition": _TEXT,
                "definition_sha": _TEXT, "inputs": _TEXT, "inputs_sha": _TEXT, "idempotency_key": (_TEXT,),
                "slot": (_TEXT,), "trigger": _TEXT, "status": _TEXT, "epoch": _WHOLE, "scheduled_at": INSTANT,
                "deadline_at": (INSTANT,), "started_at": INSTANT, "finished_at": (INSTANT,), "error": (_TEXT,),
                "outputs": (_TEXT,), "summary": (_TEXT,),
            },
            ("run_id",),
            sa.UniqueConstraint("pipeline", "tenant", "idempotency_key"),
            sa.UniqueConstraint("pipeline", "tenant", "slot"),
        ),
        "run_live": table(
            "run_live",
            {
                "run_id": _TEXT, "owner": _TEXT, "host": _TEXT, "pid": _WHOLE, "pid_started": _TEXT, "epoch": _WHOLE,
                "beat_at": INSTANT, "expires_at": INSTANT, "cancel_requested": _WHOLE,
            },
            ("run_id",),
        ),
        "steps": table(
            "steps",
            step | {
                "epoch": _WHOLE, "status": _TEXT, "seq": _WHOLE, "output": (_TEXT,), "chunks": _WHOLE,
                "rows": (_WHOLE,), "external_key": (_TEXT,), "started_at": INSTANT, "finished_at": (INSTANT,),
            },
            _KEY,
        ),
        "attempts": table(
            "attempts",
            step | {
                "epoch": _WHOLE, "attempt": _WHOLE, "code": _TEXT, "class": _TEXT, "sqlstate": (_TEXT,),
                "message": _TEXT, "waited_ms": _WHOLE, "finished_at": INSTANT,
            },
            (*_KEY, "epoch", "attempt"),
        ),
        "output_chunks": table("output_chunks", step | {"number": _WHOLE, "data": _BYTES}, (*_KEY, "number")),
    }  # fmt: skip


async def has_ledger(store: Store) -> bool:
    """Whether runs are recorded in this database."""
    return bool(await _find(store))


async def prepare_ledger(store: Store) -> None:
    """Make sure that the ledger is there and is this version's. Raises `TablesError` DF650 (newer), DF651 (altered)."""
    own = {table.name for table in ledger_tables(store.database).values()}
    found = await _find(store)
    if not own & found.keys():  # what other parts of dfrun keep beside it says nothing
        async with store.session() as session:
            await create_ledger(session.connection)
        found = await _find(store)
    version = found.pop("", {}).get("version", "0")
    if int(version) > VERSION:
        what = f"the run ledger is of version {version}, this dfrun knows version {VERSION}"
        why = "a newer dfrun has written to this database, and what it recorded could be read wrongly"
        raise TablesError(Problem("DF650", what, None, why, "upgrade dfrun"))
    _check(found, store)


def _check(found: dict[str, dict[str, str]], store: Store) -> None:
    dialect = store.engine.dialect
    for short, table in ledger_tables(store.database).items():
        there = found.get(table.name)
        shown = name(store.database, short)
        why = "runs are resumed by what these tables say, so nothing runs on tables that someone else has changed"
        if there is None:
            raise TablesError(Problem("DF651", f"the ledger's table {shown} is missing", None, why, _REPAIR))
        wanted = {c.name: c.type.compile(dialect=dialect).lower().partition(" collate")[0] for c in table.columns}
        for column in sorted(wanted.keys() | there.keys()):
            if wanted.get(column) != there.get(column):
                state = (
                    "is missing" if column not in there else "does not belong there" if column not in wanted
                    else f"is {there[column]} and should be {wanted[column]}"
                )  # fmt: skip
                what = f"the ledger was altered: {shown}.{column} {state}"
                raise TablesError(Problem("DF651", what, None, why, _REPAIR))


_REPAIR = "restore it from a backup; or, if no run is to be resumed, drop all of the ledger's tables"


async def _find(store: Store) -> dict[str, dict[str, str]]:
    """The columns and types of the ledger's live tables, and its version under ""; empty when there is none."""
    if store.database == "postgresql":
        columns = sa.text(
            "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c JOIN pg_attribute a"
            " ON a.attrelid = c.oid WHERE c.relnamespace = to_regnamespace('dfrun') AND c.relkind = 'r'"
            " AND a.attnum > 0 AND NOT a.attisdropped"
        )
    else:
        columns = sa.text(
            "SELECT t.name, c.name, lower(c.type) FROM sqlite_schema t JOIN pragma_table_info(t.name) c"
            " WHERE t.type = 'table' AND t.name LIKE '\\_dfrun\\_%' ESCAPE '\\'"
        )
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in await store.fetch(columns):
        found.setdefault(str(table), {})[str(column)] = str(kind)
    own = {table.name for table in ledger_tables(store.database).values()}
    found = {name: columns for name, columns in found.items() if name in own}  # beside them stand other tables of dfrun
    version = ledger_tables(store.database)["schema_version"]
    if version.name in found and set(found[version.name]) == {"version"}:
        rows = await store.fetch(sa.select(sa.func.max(version.c.version)))
        found[""] = {"version": str(rows[0][0] or 0)}
    return found


async def runs_with_outputs(session: Session, tenant: str) -> int:
    """How many runs of a tenant ("" for those without) keep outputs or parameters; 0 where there is no ledger."""
    tables = ledger_tables(session.database)
    listed = sa.table("sqlite_master", sa.column("name"))
    asked = sa.select(sa.func.count()).select_from(listed).where(listed.c.name == tables["runs"].name)
    if session.database == "postgresql":
        asked = sa.select(sa.func.count(sa.func.to_regclass("dfrun.runs")))
    if not (await session.fetch(asked))[0][0]:
        return 0
    runs, steps = tables["runs"], tables["steps"]
    kept = sa.or_(
        runs.c.outputs.is_not(None), sa.exists().where(steps.c.run_id == runs.c.run_id, steps.c.output.is_not(None))
    )
    counted = sa.select(sa.func.count()).select_from(runs).where(runs.c.tenant == tenant, kept)
    return int(str((await session.fetch(counted))[0][0]))


async def create_ledger(connection: AsyncConnection) -> None:
    """Create the tables unless they are there; another process that does the same waits, then finds them."""
    is_sqlite = connection.dialect.name == "sqlite"
    version = ledger_tables("sqlite" if is_sqlite else "postgresql")["schema_version"]
    if is_sqlite:
        there = "SELECT count(*) FROM sqlite_schema WHERE name = '_dfrun_schema_version'"
    else:
        await connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('dfrun ledger', 0))"))
        there = "SELECT count(to_regclass('dfrun.schema_version'))"
    if (await connection.execute(sa.text(there))).scalar_one():
        return
    if not is_sqlite:
        await connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS dfrun"))
    await connection.run_sync(version.metadata.create_all, checkfirst=False)
    await connection.execute(sa.insert(version).values(version=VERSION))
