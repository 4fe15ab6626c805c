"""A copy of an SQLite file before a migration that is more than harmless. It is no disaster recovery: it lies beside
the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from runner.errors import Problem, TablesError
from runner.migrate.plan import MigrationPlan


async def back_up(engine: AsyncEngine, plan: MigrationPlan) -> Path | None:
    """Copy the file with SQLite's own backup, consistent under WAL; None where there is nothing to lose.

    Raises `TablesError` DF622 when it cannot be written; nothing was changed then.
    """
    name = engine.url.database
    if plan.level == "LOW" or not name or name == ":memory:" or not plan.before.tables:
        return None
    import sqlite3

    file = Path(name)
    copy = file.with_name(f"{file.name}.before-{plan.hash[7:15]}")
    try:
        async with engine.connect() as connection:
            source: Any = (await connection.get_raw_connection()).driver_connection
            target = sqlite3.connect(copy)
            try:
                await source.backup(target)
            finally:
                target.close()
    except (OSError, sqlite3.Error) as error:
        copy.unlink(missing_ok=True)
        what = f"the copy {copy.name} cannot be written"
        raise TablesError(Problem("DF622", what, None, type(error).__name__, "free some space beside it")) from error
    return copy
