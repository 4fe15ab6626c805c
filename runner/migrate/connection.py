"""One connection for migrations: statements are sent as they are, and transactions are opened and closed by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.engine import Result
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.base import Executable

from runner.migrate.conversions import register_conversions
from runner.sql.filters import Database


class Live:
    """A connection on the database whose tables are compared or changed.

    `schema` is where unqualified names are created (`main` on SQLite), `version` the server's major version.
    """

    def __init__(self, connection: AsyncConnection, schema: str, version: int) -> None:
        self.connection = connection
        self.database: Database = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
        self.schema = schema
        self.version = version

    async def execute(self, sql: str) -> int:
        """Run one statement; how many rows it changed."""
        return int((await self.connection.exec_driver_sql(sql)).rowcount)

    async def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        return [tuple(row) for row in (await self.connection.exec_driver_sql(sql)).all()]

    async def value(self, sql: str) -> Any:
        """The first value of the first row."""
        return (await self.connection.exec_driver_sql(sql)).scalar()

    async def run(self, statement: Executable, parameters: Any = None) -> Result[Any]:
        """A statement of SQLAlchemy Core."""
        return await self.connection.execute(statement, parameters)

    async def script(self, statements: Sequence[str]) -> None:
        """Run many statements in order; one round trip where the driver can. Raises as `execute` does."""
        if not statements:
            return
        if self.database == "sqlite":
            for statement in statements:
                await self.connection.exec_driver_sql(statement)
            return
        from runner.dialects.errors import is_database_error

        try:
            await (await self.driver()).execute(";\n".join(statements))
        except Exception as error:
            if isinstance(error, ConnectionError) or not is_database_error(error):
                raise
            raise DBAPIError(None, None, error) from error

    async def driver(self) -> Any:
        """The driver's own connection."""
        return (await self.connection.get_raw_connection()).driver_connection

    @asynccontextmanager
    async def transaction(self, *settings: str) -> AsyncIterator[None]:
        """A transaction that commits when the block ends well; `settings` are statements that open it."""
        await self.execute("BEGIN IMMEDIATE" if self.database == "sqlite" else "BEGIN")
        try:
            await self.script(settings)
            yield
        except BaseException:
            await self.rolled_back("ROLLBACK")
            raise
        await self.execute("COMMIT")

    async def rolled_back(self, statement: str) -> None:
        """Send a ROLLBACK; a connection that is gone has rolled back already."""
        from runner.dialects.errors import is_database_error

        try:
            await self.execute(statement)
        except Exception as error:
            if not is_database_error(error):
                raise


@asynccontextmanager
async def connect(engine: AsyncEngine) -> AsyncIterator[Live]:
    """A connection of its own without any automatic transaction."""
    async with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            asked = "SELECT current_schema(), current_setting('server_version_num')"
            schema, version = tuple((await connection.exec_driver_sql(asked)).one())
            yield Live(connection, schema or "public", int(version) // 10_000)
            return
        import sqlite3

        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await register_conversions(driver)
        yield Live(connection, "main", sqlite3.sqlite_version_info[1])
