"""What the database at hand says about a plan: how many rows, what the probes find, which views stand in the way."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from runner.errors import Problem
from runner.migrate import postgresql, sqltext
from runner.migrate.connection import Live
from runner.migrate.difference import Change
from runner.migrate.plan import Evidence
from runner.migrate.recipes import Names
from runner.migrate.sqlite import AUDIT, Attached
from runner.migrate.step import Step
from runner.tenancy import hidden_rows, hidden_tables

_VIEWS = """
SELECT DISTINCT v.relname, c.relname, a.attname FROM pg_depend d
JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_class c ON c.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND v.oid <> c.oid
  AND c.relnamespace = {schema}::regnamespace ORDER BY 1, 2, 3"""


async def gather(live: Live, steps: Sequence[Step], proved: str) -> tuple[Evidence, list[Problem]]:
    """Counts and sizes of the tables that are touched, and a problem (DF607) for each probe that finds rows."""
    quote = sqltext.quoted if live.database == "sqlite" else postgresql.quoted
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    names = sorted({table for step in steps for table in step.tables})
    hidden: list[str] = []
    if live.database == "postgresql":
        hidden = await hidden_tables(live.connection, names)
    for table, count, size in await _sizes(live, names):
        if table in hidden:
            continue
        rows[table] = int(await live.value(f"SELECT count(*) FROM {quote(table)}")) if count < 0 else int(count)
        sizes[table] = int(size)
    found: dict[str, int] = {}
    problems: list[Problem] = []
    for step in steps:
        if (step.probes or step.batch or step.backups) and (unseen := [t for t in step.tables if t in hidden]):
            problems.append(hidden_rows(unseen, f"{step.op} is about the rows of all tenants"))
            continue
        for probe in step.probes:
            if probe.now is None:
                continue
            misfits = await _asked(live, probe.now)
            if misfits is None:
                continue
            found[probe.sql] = misfits
            if misfits:
                what = f"{misfits} {probe.says}" if misfits > 1 else f"1 {_one(probe.says)}"
                problems.append(Problem("DF607", what, None, f"{step.op} needs it to be none", probe.fix))
    return Evidence(rows, found, sizes, proved), list(dict.fromkeys(problems))


async def _asked(live: Live, sql: str) -> int | None:
    """What a probe finds; None where it cannot be asked yet."""
    if live.database == "sqlite":
        return int(await live.value(sql))
    await live.execute("SAVEPOINT dfrun_probe")
    try:
        return int(await live.value(sql))
    except DBAPIError:
        return None
    finally:
        await live.rolled_back("ROLLBACK TO SAVEPOINT dfrun_probe")


def _one(says: str) -> str:
    for many, one in (("rows ", "row "), ("values ", "value "), (" have ", " has "), (" stand ", " stands "),
                      (" reference ", " references "), (" break ", " breaks ")):  # fmt: skip
        says = says.replace(many, one, 1)
    return says


async def _sizes(live: Live, tables: Sequence[str]) -> list[tuple[str, int, int]]:
    if live.database == "sqlite":
        rows = await live.fetch("SELECT name FROM sqlite_master WHERE type = 'table'")
        return [(name, -1, 0) for (name,) in rows if name in tables]
    listed = ", ".join(map(postgresql.literal, tables)) or "''"
    sql = f"""SELECT relname, CASE WHEN reltuples < 0 OR reltuples < 100000 THEN -1 ELSE reltuples END::bigint,
      pg_total_relation_size(oid) FROM pg_class
      WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname IN ({listed}) ORDER BY 1"""
    return [(name, count, size) for name, count, size in await live.fetch(sql)]


async def dependants(
    live: Live, changes: Sequence[Change], attached: Sequence[Attached], names: Names
) -> list[Problem]:
    """DF608 for each view, and on SQLite each trigger, that stands in the way of a change."""
    found: list[Problem] = []
    if live.database == "sqlite":
        for change in changes:
            if change.op != "drop_column":
                continue
            for item in attached:
                if (
                    not item.name.startswith(AUDIT)
                    and item.mentions(change.name)
                    and item.mentions(names.table(change.table))
                ):
                    found.append(_in_the_way(f"the {item.kind} {item.name!r}", change))
        return found
    if not any(change.op in ("change_type", "change_generated") for change in changes):
        return []
    # the copy stands before the schema in the search path by now
    views = await live.fetch(_VIEWS.format(schema=postgresql.literal(postgresql.quoted(live.schema))))
    for change in changes:
        if change.op in ("change_type", "change_generated"):
            old = (names.table(change.table), names.column(change.table, change.name))
            found += [_in_the_way(f"the view {view!r}", change) for view, *used in views if tuple(used) == old]
    return found


def _in_the_way(what: str, change: Change) -> Problem:
    return Problem("DF608", f"{what} uses {change.subject}", None, f"{change.op} would break it",
                   "drop it, migrate, and create it again")  # fmt: skip
