"""Two states of models on a real database, and the way from one to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.migrate.connection import Live, connect
from runner.migrate.gate import Gate
from runner.migrate.migrator import Migrator, Outcome
from runner.migrate.plan import MigrationPlan
from runner.migrate.wanted import wanted_of
from runner.source import parse_document
from runner.sql.filters import Database
from schemas.shapes import ModelShape

T = TypeVar("T")


def shapes(text: str) -> dict[str, ModelShape]:
    """The models of a text."""
    document = parse_document(text.encode(), "models.yaml")
    return dict(build_catalog([(document, load_models(document))]).models)


@dataclass
class Shop:
    """A database, and models as text that it is brought to."""

    engine: AsyncEngine

    @property
    def database(self) -> Database:
        return cast(Database, self.engine.dialect.name)

    def migrator(self, text: str, **options: Any) -> Migrator:
        wanted = wanted_of(shapes(text), self.database, dict.fromkeys(shapes(text), "models.yaml"))
        return Migrator(self.engine, wanted, **options)

    def plan(self, text: str, allow: frozenset[str] = frozenset()) -> MigrationPlan:
        return asyncio.run(self.migrator(text).plan(allow))

    def apply(self, text: str, **options: Any) -> Outcome:
        """Apply whatever is pending, HIGH or not."""

        async def work() -> Outcome:
            migrator = self.migrator(text, **options)
            plan = await migrator.plan()
            return await migrator.apply(Gate("HIGH", frozenset(plan.changes)))

        return asyncio.run(work())

    def live(self, act: Callable[[Live], Awaitable[T]]) -> T:
        async def work() -> T:
            async with connect(self.engine) as live:
                return await act(live)

        return asyncio.run(work())

    def run(self, *statements: str) -> None:
        async def work(live: Live) -> None:
            for sql in statements:
                await live.execute(sql)

        self.live(work)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.live(lambda live: live.fetch(sql))


@pytest.fixture
def shop(engine: AsyncEngine) -> Shop:
    return Shop(engine)
