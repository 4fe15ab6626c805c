"""The same values in, the same values out, and the same rows found on both databases."""

import asyncio
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.source import parse_document
from runner.sql.filters import Database, condition
from runner.sql.orders import order
from runner.sql.tables import build_tables
from schemas.filters import parse_filter, parse_order_by

MODELS = """\
models:
  Thing:
    features: {timestamps: false}
    fields:
      sku: {type: string, max_length: 10, primary_key: true}
      age: {type: integer?, nullable: true}
      price: {type: decimal, precision: 12, scale: 2, nullable: true, check: {$gte: 0}}
      seen: datetime?
      day: date?
      at: time?
      key: uuid?
      extra: json?
      days: {type: list, items: date, nullable: true}
      blob: bytes?
      ok: boolean?
      weight: float?
      tier: {type: enum, values: [basic, "o'k"], default: "o'k"}
""".replace("{type: integer?, nullable: true}", "integer?")

FULL: dict[str, Any] = {
    "sku": "Ünï%", "age": -5, "price": Decimal("19.99"), "seen": datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
    "day": date(1999, 12, 31), "at": time(23, 59, 59, 1), "key": UUID(int=7), "extra": {"a": [1, None, "x"]}, "days": [date(1999, 12, 31)],
    "blob": b"\x00\xff", "ok": True, "weight": 0.1, "tier": "basic",
}  # fmt: skip


def table_for(engine: AsyncEngine) -> sa.Table:
    document = parse_document(MODELS.encode(), "models.yaml")
    catalog = build_catalog([(document, load_models(document))])
    return build_tables(catalog.models, cast(Database, engine.dialect.name))["Thing"]


async def fill(engine: AsyncEngine, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
        for row in rows:
            await connection.execute(table.insert().values(row))


def test_values_come_back_as_they_went_in(engine: AsyncEngine) -> None:
    table = table_for(engine)

    async def work() -> list[Any]:
        await fill(engine, table, [FULL, {"sku": "empty"}])
        async with engine.connect() as connection:
            return [dict(r) for r in (await connection.execute(table.select().order_by(table.c.sku))).mappings()]

    empty, full = sorted(asyncio.run(work()), key=lambda row: row["sku"] != "empty")
    assert full == FULL
    assert empty == dict.fromkeys(FULL) | {"sku": "empty", "tier": "o'k"}


@pytest.mark.parametrize(
    "wrong",
    [{"price": Decimal("-0.01")}, {"tier": "gold"}, {"sku": "longer than ten"}],
    ids=["check", "enum", "length"],
)
def test_the_database_keeps_what_the_types_promise(engine: AsyncEngine, wrong: dict[str, Any]) -> None:
    table = table_for(engine)
    with pytest.raises((IntegrityError, sa.exc.DBAPIError)):
        asyncio.run(fill(engine, table, [FULL | wrong]))


ROWS: list[dict[str, Any]] = [
    {"sku": "a", "age": 1, "price": Decimal("1.00"), "ok": True},
    {"sku": "B", "age": 2, "price": Decimal("19.99"), "ok": False},
    {"sku": "b%_", "age": None, "price": None, "ok": None},
    {"sku": "bxx", "age": 30, "price": Decimal("20.00"), "ok": True},
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", "B a b%_ bxx"),
        ("{age: 1}", "a"),
        ("{age: {$ne: 1}}", "B b%_ bxx"),
        ("{age: null}", "b%_"),
        ("{age: {$ne: null}}", "B a bxx"),
        ("{age: {$gt: 1}}", "B bxx"),
        ("{age: {$not: {$gt: 1}}}", "a b%_"),
        ("{age: {$in: [null, 1]}}", "a b%_"),
        ("{age: {$nin: [null, 1]}}", "B bxx"),
        ("{age: {$nin: [1]}}", "B b%_ bxx"),
        ("{age: {$in: []}}", ""),
        ("{age: {$nin: []}}", "B a b%_ bxx"),
        ("{age: {$lt: 99999999999999999999}}", "B a bxx"),
        ("{age: {$gt: 99999999999999999999}}", ""),
        ("{price: 19.99}", "B"),
        ("{price: 19.990}", "B"),
        ("{price: 19.991}", ""),
        ("{price: {$gt: 19.985}}", "B bxx"),
        ("{price: {$lte: 19.995}}", "B a"),
        ("{price: {$in: [1, 19.99, 5.555]}}", "B a"),
        ("{price: {$exists: false}}", "b%_"),
        ("{sku: {$like: 'b%'}}", "b%_ bxx"),
        ("{sku: {$like: 'b\\%\\_'}}", "b%_"),
        ("{sku: {$gt: B}}", "a b%_ bxx"),
        ("{sku: {$ilike: 'B%'}}", "B b%_ bxx"),
        ("{sku: {$regex: '^b.+$'}}", "b%_ bxx"),
        ("{sku: {$regex: '^B', $options: i}}", "B b%_ bxx"),
        ("{sku: {$not: {$regex: 'x{2}|a'}}}", "B b%_"),
        ("{sku: {$contains: '%'}}", "b%_"),
        ("{sku: {$startswith: b}}", "b%_ bxx"),
        ("{sku: {$endswith: _}}", "b%_"),
        ("{age: {$mod: [2, 0]}}", "B bxx"),
        ("{sku: {$in: [a, B, c]}}", "B a"),
        ("{ok: true}", "a bxx"),
        ("{ok: {$ne: true}}", "B b%_"),
        ("{$or: [{age: 1}, {sku: B}]}", "B a"),
        ("{$nor: [{age: 1}, {sku: B}]}", "b%_ bxx"),
        ("{$not: {$or: [{age: 1}, {age: null}]}}", "B bxx"),
        ("{$or: [{}, {age: 1}]}", "B a b%_ bxx"),
    ],
)
def test_a_filter_finds_the_same_rows_on_both_databases(engine: AsyncEngine, text: str, found: str) -> None:
    table = table_for(engine)
    document = parse_document(MODELS.encode(), "m")
    types = {n: f.type for n, f in build_catalog([(document, load_models(document))]).models["Thing"].fields.items()}
    tree = parse_filter(parse_document(f"f: {text}".encode(), "f").root["f"], types)

    async def work() -> list[str]:
        await fill(engine, table, ROWS)
        async with engine.connect() as connection:
            where = condition(tree, dict(table.c), types, cast(Database, engine.dialect.name))
            by = order(parse_order_by(["sku"], types), dict(table.c), types, cast(Database, engine.dialect.name))
            return list((await connection.execute(sa.select(table.c.sku).where(where).order_by(*by))).scalars())

    assert asyncio.run(work()) == found.split()


def test_null_is_lowest(engine: AsyncEngine) -> None:
    table = table_for(engine)
    types = {"age": table.c.age.type.value_type}  # type: ignore[attr-defined]

    async def work(way: str) -> list[Any]:
        async with engine.connect() as connection:
            by = order(parse_order_by([way], types), dict(table.c), types, cast(Database, engine.dialect.name))
            return list((await connection.execute(sa.select(table.c.age).order_by(*by))).scalars())

    asyncio.run(fill(engine, table, ROWS))
    assert asyncio.run(work("age")) == [None, 1, 2, 30]
    assert asyncio.run(work("-age")) == [30, 2, 1, None]
