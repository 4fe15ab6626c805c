"""Opening a database for a dry run: changes to its tables that a run would make first are part of what is rolled back.

SQLite rebuilds a table only outside of a transaction, and a file that is not there yet must not appear: there, the dry
run works on a copy.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.database import Target, check_file, check_live, harmless_plan, migrator_of, open_store, reached
from schemas.shapes import ModelShape

if TYPE_CHECKING:
    from runner.dialects.dry import DryStore
    from runner.migrate.written import Written

_ASIDE = re.compile(r"^((?:CREATE (?:UNIQUE )?|DROP |REINDEX )INDEX) CONCURRENTLY\b")


@asynccontextmanager
async def open_dry_store(
    target: Target, models: Mapping[str, ModelShape], sources: Mapping[str, str], written: Sequence[Written] = ()
) -> AsyncIterator[DryStore]:
    """The database with its tables as the models say, in a transaction that is rolled back.

    Raises as `open_store` does.
    """
    from sqlalchemy.pool import NullPool

    from runner.dialects.dry import DryStore
    from runner.dialects.session import open_engine
    from runner.sql.tables import build_tables

    check_file(target, models)
    with tempfile.TemporaryDirectory(prefix="dfrun-dry-") as folder:
        plan = None
        if not target.is_missing_file:
            async with reached(target), AsyncExitStack() as stack:
                engine = open_engine(target.url, poolclass=NullPool)
                stack.push_async_callback(engine.dispose)
                migrator = migrator_of(engine, models, target.database, sources, written)
                plan = await harmless_plan(migrator, target, models)
        if target.database == "sqlite" and (plan is None or plan.steps):
            target, plan = _copied(target, Path(folder)), None
            async with open_store(target, models, sources, written):
                pass  # the copy has its tables now
        store = DryStore(open_engine(target.url, pool_size=1), build_tables(models, target.database))
        try:
            async with reached(target):
                await store.begin()
                if plan is not None and plan.steps:
                    async with store.session() as session:
                        for statement in (sql for step in plan.steps for sql in step.sql):
                            await session.connection.exec_driver_sql(_ASIDE.sub(r"\1", statement))
                await check_live(store, target, models)
            yield store
        finally:
            await store.close()


def _copied(target: Target, folder: Path) -> Target:
    """The same file in a folder, or none where there is none."""
    copy = folder / target.file.name
    if not target.is_missing_file:
        with sqlite3.connect(f"file:{target.file}?mode=ro", uri=True) as source, sqlite3.connect(copy) as to:
            source.backup(to)
        source.close()
        to.close()
    return replace(target, url=f"sqlite:///{copy}")
