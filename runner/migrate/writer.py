"""SQLite's one writer: whoever comes too late, or finds no room, is told so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError

from runner.errors import Problem, TablesError
from runner.migrate.lock import LockError


@asynccontextmanager
async def writing() -> AsyncIterator[None]:
    """Writing inside, in one transaction. Raises `LockError` DF615 when another process does not stop writing,
    `TablesError` DF621 when the file takes nothing more: nothing was changed then. Any other error is left alone."""
    try:
        yield
    except DBAPIError as error:
        name = str(getattr(error.orig, "sqlite_errorname", ""))
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            what = "another process is writing the database file"
            raise LockError(Problem("DF615", what, None, "", "try again when it is done")) from error
        if not name.startswith(("SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR")):
            raise
        from runner.dialects.errors import step_error

        told = step_error(error, {}).problem
        raise TablesError(Problem("DF621", told.what, None, "nothing was changed", told.fix)) from error
