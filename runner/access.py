"""The way from a step to its tables: every query is guarded by its model's features, becomes a statement, and is sent.

A node kind has no other way, so that none can forget a feature.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import cast

from runner.dialects import bulk
from runner.dialects.base import Session
from runner.features import guard
from runner.features.base import Scope
from runner.query import Delete, Insert, Load, Query, Question, Read, Update, Upsert, row_with
from runner.statements import statement
from schemas.shapes import ModelShape


class Access:
    """The tables as one step sees them, inside its transaction."""

    def __init__(self, session: Session, scope: Scope) -> None:
        self._session = session
        self._scope = scope

    async def fetch(self, query: Question) -> list[tuple[object, ...]]:
        """All rows of the answer."""
        return await self._fetch(guard(query, self._scope))

    async def stream(self, query: Question) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows of the answer in batches; memory stays bounded."""
        guarded = guard(query, self._scope)
        async for rows in self._session.stream(
            statement(guarded, self._session.table(guarded.model), self._session.database)
        ):
            yield rows

    async def insert(self, insert: Insert) -> dict[str, object]:
        """The new row."""
        return _row(insert.model, (await self._fetch(guard(insert, self._scope)))[0])

    async def upsert(self, upsert: Upsert) -> tuple[dict[str, object], bool]:
        """The row, and whether it is new."""
        is_there = False
        if self._session.database == "sqlite":
            where = row_with(upsert.values, upsert.key)
            is_there = bool(await self.fetch(Read(upsert.model, upsert.key[:1], where, limit=1)))
        *row, is_new = (await self._fetch(guard(upsert, self._scope)))[0]
        return _row(upsert.model, row), not is_there if self._session.database == "sqlite" else bool(is_new)

    async def update_one(self, update: Update) -> dict[str, object]:
        """The row that the update finds, as it is afterwards."""
        guarded = guard(update, self._scope)
        return _row(update.model, (await self._fetch(guarded))[0])

    async def execute(self, write: Update | Delete) -> int:
        """How many rows changed."""
        guarded = guard(write, self._scope)
        table = self._session.table(guarded.model)
        return await self._session.execute(statement(guarded, table, self._session.database))

    async def load(self, load: Load) -> bulk.Loaded:
        """How many rows came to be, were changed, were passed over. For an upsert no two rows may have one key."""
        guarded = cast(Load, guard(load, self._scope))
        stamp = tuple(guarded.constants.values())
        rows = [row + stamp for row in guarded.rows] if stamp else guarded.rows
        kinds = (*guarded.kinds, *(guarded.model.fields[name].type for name in guarded.constants))
        columns = (*guarded.columns, *guarded.constants)
        table = self._session.table(guarded.model)
        plain = bulk.Load(table, columns, kinds, guarded.conflict, guarded.key, guarded.update)
        return await bulk.load_rows(self._session, plain, rows)

    async def reserve_ids(self, model: ModelShape, count: int) -> list[int]:
        """`count` generated keys that nobody else will get."""
        return await bulk.reserve_ids(self._session, self._session.table(model), model.primary_key[0], count)

    async def _fetch(self, guarded: Query) -> list[tuple[object, ...]]:
        table = self._session.table(guarded.model)
        return await self._session.fetch(statement(guarded, table, self._session.database))


def _row(model: ModelShape, values: Sequence[object]) -> dict[str, object]:
    return dict(zip(model.fields, values, strict=True))
