"""One transaction over SQLAlchemy Core, the same on both databases, and the engines it runs on.

SQLite gets an explicit BEGIN: with the driver's defaults a CREATE TABLE survives the rollback of the transaction it was
in.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.base import Executable

from runner.dialects.bound import Bound
from runner.dialects.forms import Form, forms_of
from runner.sql import decimals, jsonedit, jsonwalk
from runner.sql.digests import row_digest, trail_digest
from runner.sql.filters import Database
from runner.sql.patterns import matches_pattern
from schemas.shapes import ModelShape
from schemas.types import INTEGER_MAX, INTEGER_MIN

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "case_sensitive_like=ON")
_MOST_PREPARED = 100
"""Statements that one connection to PostgreSQL keeps ready."""
CONNECT_SECONDS = 10
"""A server that does not answer for so long is not there."""


def open_engine(url: str | sa.URL, **options: Any) -> AsyncEngine:
    """An engine for `postgresql://…` or `sqlite:///…`; the driver is chosen here, parameters never reach a log."""
    parsed = sa.make_url(url)
    name = parsed.get_backend_name()
    driver = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}[name]
    if name == "postgresql":
        options = {"json_deserializer": _loads, **options}
        options["connect_args"] = {"timeout": CONNECT_SECONDS} | options.get("connect_args", {})
        return create_async_engine(parsed.set(drivername=driver), hide_parameters=True, **options)
    connect: dict[str, Any] = {"isolation_level": None}
    engine = create_async_engine(parsed.set(drivername=driver), hide_parameters=True, connect_args=connect, **options)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        try:
            _settle(connection)
        except BaseException:
            connection.close()  # its thread would outlive the loop otherwise
            raise

    return engine


def _loads(text: str) -> Any:
    """A jsonb value. PostgreSQL writes 1e300 with all its digits: what is beyond 64 bits was a double."""
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | float:
    is_whole = len(digits) < 19 or (len(digits) < 21 and INTEGER_MIN <= int(digits) <= INTEGER_MAX)
    return int(digits) if is_whole else float(digits)


def _settle(connection: Any) -> None:
    """The settings and functions that every SQLite connection has."""
    connection.create_function("dfrun_matches", 2, matches_pattern, deterministic=True)
    connection.create_function("dfrun_decimal", 6, decimals.change, deterministic=True)
    connection.create_function("dfrun_sum", 3, decimals.total, deterministic=True)
    connection.create_function("dfrun_average", 5, decimals.average, deterministic=True)
    connection.create_function("dfrun_bytes", 1, lambda text: None if text is None else bytes.fromhex(text))
    connection.create_function("dfrun_leaves", 3, jsonwalk.leaves_of, deterministic=True)
    connection.create_function("dfrun_is_there", 2, jsonwalk.is_at, deterministic=True)
    connection.create_function("dfrun_canonical", 1, jsonwalk.canonical_at, deterministic=True)
    connection.create_function("dfrun_at", 2, jsonwalk.canonical_at, deterministic=True)
    connection.create_function("dfrun_change", 2, jsonedit.change_document, deterministic=True)
    connection.create_function("dfrun_misfit", 2, jsonedit.misfit_number, deterministic=True)
    connection.create_function("dfrun_finite", 1, decimals.finite, deterministic=True)
    connection.create_function("dfrun_overflow", 0, decimals.overflow)
    connection.create_function("dfrun_remainder", 2, decimals.remainder, deterministic=True)
    connection.create_function("dfrun_row_digest", -1, row_digest, deterministic=True)
    connection.create_function("dfrun_trail_digest", 1, trail_digest, deterministic=True)
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class CoreSession:
    """One transaction on one connection.

    entered: how many rows the first of the statements that came with BEGIN's last one changed (None without any).
    closing: statements that are to travel with COMMIT.
    """

    def __init__(
        self, connection: AsyncConnection, driver: Any, tables: Mapping[str, sa.Table], prepared: dict[str, Any]
    ) -> None:
        self._connection = connection
        self._driver = driver
        self._tables = tables
        self._prepared = prepared
        self._forms = forms_of(connection.dialect)
        self.database: Database = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
        self.entered: int | None = None
        self.closing: tuple[Bound, ...] = ()

    def table(self, model: ModelShape) -> sa.Table:
        """The table of a model."""
        return self._tables[model.name]

    def table_named(self, model: str) -> sa.Table:
        """The table of the model with this name."""
        return self._tables[model]

    async def fetch(self, statement: Executable) -> list[tuple[object, ...]]:
        """All rows, each value in its Python type."""
        known = self._forms.of(statement)
        if known is None:
            return [tuple(row) for row in (await self._connection.execute(statement)).all()]
        form, values = known
        rows, _ = await self._run(form, values)
        return form.rows(rows)

    async def stream(
        self, statement: Executable, rows_per_batch: int = 5_000
    ) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows in batches from a cursor of the server; memory stays bounded."""
        result = await self._connection.stream(statement)
        async for rows in result.partitions(rows_per_batch):
            yield [tuple(row) for row in rows]

    async def ask(self, statement: Executable) -> tuple[tuple[str, ...], AsyncIterator[list[tuple[object, ...]]]]:
        """The names of the columns, and the rows in batches."""
        result = await self._connection.stream(statement)

        async def batches() -> AsyncIterator[list[tuple[object, ...]]]:
            async for rows in result.partitions(5_000):
                yield [tuple(row) for row in rows]

        return tuple(result.keys()), batches()

    async def execute(self, statement: Executable, parameters: Any = None) -> int:
        """How many rows the statement changed; `parameters` is a mapping, or a list of them for many rows."""
        known = self._forms.of(statement) if parameters is None else None
        if known is None:
            return int((await self._connection.execute(statement, parameters)).rowcount)
        return (await self._run(*known))[1]

    async def _run(self, form: Form, values: list[Any]) -> tuple[list[Any], int]:
        """The rows that the driver gives, and how many rows changed."""
        if self.database == "sqlite":
            if not form.is_known:
                self._forms.learn(form, [None] * len(form.kinds))
            found: tuple[list[Any], int] = await self._driver._execute(
                _run_sqlite, self._driver._conn, form.text, values
            )
            return found
        prepared = self._prepared.get(form.text)
        if prepared is None:
            if len(self._prepared) >= _MOST_PREPARED:
                self._prepared.clear()
            prepared = self._prepared[form.text] = await self._driver.prepare(form.text)
        if not form.is_known:
            self._forms.learn(form, [column.type.oid for column in prepared.get_attributes()])
        rows = await prepared.fetch(*values)
        return rows, _count(prepared.get_statusmsg()) or 0

    async def send(self, statements: Sequence[Bound]) -> int | None:
        """Run statements of dfrun's own, on PostgreSQL in one round trip; how many rows the last one changed."""
        if not statements:
            return None
        if self.database == "postgresql":
            return _count(await self._driver.execute("; ".join(each.inlined() for each in statements)))
        count: int = await self._driver._execute(_send_sqlite, self._driver._conn, statements)
        return count

    @property
    def connection(self) -> AsyncConnection:
        """The connection the transaction is on."""
        return self._connection

    async def driver(self) -> Any:
        """The driver's own connection, inside the transaction, for the fast paths of one database."""
        return self._driver

    def compiled(self, statement: Executable) -> str:
        """The statement as this database reads it."""
        return str(statement.compile(dialect=self._connection.dialect))  # type: ignore[attr-defined]


def _run_sqlite(connection: Any, text: str, values: Sequence[Any]) -> tuple[list[Any], int]:
    """In the connection's thread, in one go: each way there and back takes longer than a small statement."""
    cursor = connection.execute(text, values)
    return cursor.fetchall(), cursor.rowcount


def _send_sqlite(connection: Any, statements: Sequence[Bound]) -> int:
    """The same for statements of dfrun's own; how many rows the last one changed."""
    count = 0
    for each in statements:
        count = connection.execute(each.text, each.values).rowcount
    return count


def _count(tag: str) -> int | None:
    """`INSERT 0 1` → 1."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isdigit() else None
