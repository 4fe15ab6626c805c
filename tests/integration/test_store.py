"""What a database shows of a run's transactions."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.dialects.store import Store


@pytest.mark.parametrize("label", ["r1 each.charge", 'it\'s "x" :y; drop %s \\ ü $1 $$', "é" * 90])
def test_any_label_can_be_shown(engine: AsyncEngine, label: str) -> None:
    async def work() -> object:
        store = Store(engine, {})
        try:
            async with store.session(label=label) as session:
                if session.database == "sqlite":  # it has no list of activities
                    return await session.fetch(sa.text("select 'dfrun '"))
                return await session.fetch(sa.text("select current_setting('application_name')"))
        finally:
            await store.close()

    [(shown,)] = asyncio.run(work())  # type: ignore[misc]
    assert shown.startswith("dfrun ") and len(shown) <= 63 and shown.isascii()
