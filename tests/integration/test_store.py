"""What a database shows of a run's transactions."""

import asyncio
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.dialects.bound import Bound
from runner.dialects.errors import is_database_error
from runner.dialects.store import Store
from runner.dialects.types import column_type
from schemas.types import ValueType


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


KINDS = {
    "name": (ValueType("string", max_length=20), "né"), "text": (ValueType("text"), "x" * 300),
    "number": (ValueType("integer"), 2**40), "share": (ValueType("float"), 0.1), "flag": (ValueType("boolean"), True),
    "price": (ValueType("decimal", precision=12, scale=2), Decimal("19.90")), "day": (ValueType("date"), date(2024, 2, 29)),
    "hour": (ValueType("time"), time(23, 59, 1, 5)), "at": (ValueType("datetime"), datetime(2024, 2, 29, 1, tzinfo=UTC)),
    "uid": (ValueType("uuid"), UUID(int=7)), "raw": (ValueType("bytes"), b"\x00\xff"),
    "doc": (ValueType("json"), {"a": [1, 1e300, None]}), "tags": (ValueType("list"), ["a"]),
}  # fmt: skip


def test_what_goes_straight_to_the_driver_comes_back_as_through_sqlalchemy(engine: AsyncEngine) -> None:
    columns = [sa.Column(name, column_type(kind)) for name, (kind, _) in KINDS.items()]
    table = sa.Table("form", sa.MetaData(), sa.Column("id", sa.Integer, sa.Identity(), primary_key=True), *columns)
    values = {name: value for name, (_, value) in KINDS.items()}

    async def work() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(table.metadata.create_all)
        store = Store(engine, {"form": table})
        asked = sa.select(table, sa.func.count().over(), sa.literal(None)).order_by(table.c.id)
        try:
            async with store.session() as session:
                assert await session.execute(sa.insert(table).values(values)) == 1
                [row] = await session.fetch(sa.insert(table).values(dict.fromkeys(values)).returning(table))
                assert row == (2, *[None] * len(values))
                assert await session.execute(sa.update(table).values(number=5).where(table.c.id == 9)) == 0
                found = await session.fetch(asked)
                assert found == [tuple(row) for row in (await session.connection.execute(asked)).all()]
                assert found[0] == (1, *values.values(), 2, None) and type(found[0][6]) is Decimal
                assert all(isinstance(a, type(b)) for a, b in zip(found[0][1:-2], values.values(), strict=True))
                for number in (1, 2):  # the same form with other values
                    [row] = await session.fetch(sa.select(table.c.id).where(table.c.id == number))
                    assert row == (number,)
        finally:
            await store.close()

    asyncio.run(work())


def test_a_kept_statement_outlives_a_change_of_its_table(engine: AsyncEngine) -> None:
    """Someone else may alter a table while a connection keeps a statement of it ready: one attempt fails, no more."""
    table = sa.Table("form", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
    change = "ALTER TABLE form ALTER n TYPE bigint" if engine.dialect.name == "postgresql" else "ALTER TABLE form ADD m"

    async def work() -> list[object]:
        async with engine.begin() as connection:
            await connection.run_sync(table.metadata.create_all)
        store = Store(engine, {"form": table})
        told: list[object] = []
        try:
            await store.write([Bound("INSERT INTO form VALUES (1, 2)")])
            told.append(await store.fetch(sa.select(table)))
            async with engine.begin() as connection:
                await connection.exec_driver_sql(change)
            for _ in range(2):
                try:
                    told.append(await store.fetch(sa.select(table)))
                except Exception as error:
                    assert is_database_error(error)
            return told
        finally:
            await store.close()

    told = asyncio.run(work())
    assert len(told) >= 2 and told == [[(1, 2)]] * len(told)
