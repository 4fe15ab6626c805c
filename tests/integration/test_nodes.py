"""The generated nodes do on both databases what their names say."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.session import CoreSession, open_session
from runner.errors import StepError
from runner.filters import Database
from runner.nodes import resolve_node
from runner.nodes.base import Context, Subject
from runner.rows import SpooledRows
from runner.source import parse_document
from runner.tables import build_tables
from schemas.types import Delivered

MODELS = """\
models:
  Product:
    fields:
      sku: {type: string, unique: true}
      price: {type: decimal, precision: 12, scale: 2}
      stock: {type: integer, default: 7}
"""
NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)


@dataclass
class Here:
    """A running step's surroundings."""

    session: CoreSession
    now: datetime = NOW
    done: int = 0

    def progress(self, rows: int) -> None:
        self.done += rows


class Shop:
    """A database with an empty table of products."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        document = parse_document(MODELS.encode(), "models.yaml")
        self.models = build_catalog([(document, load_models(document))]).models
        self.tables = build_tables(self.models, cast(Database, engine.dialect.name))

    async def prepare(self) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(self.tables["Product"].metadata.create_all)

    async def do(self, node: str, **arguments: Any) -> Mapping[str, Any]:
        kind, model = resolve_node(node, self.models)
        checked = kind.check(arguments, Subject(model, self.models, Path()))
        async with open_session(self.engine, self.tables) as session:
            return cast(Mapping[str, Any], await kind.run(checked.parsed, cast(Context, Here(session))))


def test_a_row_lives_and_dies(engine: AsyncEngine) -> None:
    shop = Shop(engine)

    async def work() -> None:
        await shop.prepare()
        made = await shop.do("Product.create", sku=Delivered("a"), price=Delivered(Decimal("19.99")))
        assert made == {
            "id": 1, "sku": "a", "price": Decimal("19.99"), "stock": 7, "created_at": NOW, "updated_at": NOW,
        }  # fmt: skip
        assert await shop.do("ProductReadNode", sku=Delivered("a")) == made
        assert await shop.do("Product.delete", id=Delivered(1)) == made
        assert await shop.do("Product.read", id=Delivered(1), missing="null") is None
        again = await shop.do("Product.create", sku=Delivered("a"), price=Delivered(1))
        assert again["id"] == 2  # an id is never handed out twice

    asyncio.run(work())


def test_a_listing_is_ordered_and_counted(engine: AsyncEngine) -> None:
    shop = Shop(engine)

    async def work() -> None:
        await shop.prepare()
        for sku, price in [("b", 2), ("a", 2), ("c", 1)]:
            await shop.do("Product.create", sku=Delivered(sku), price=Delivered(price))
        page = {"limit": Delivered(2), "offset": Delivered(1)}
        listed = await shop.do("Product.list", order_by=["-price"], fields=["sku", "price"], **page)
        rows = cast(SpooledRows, listed["rows"])
        found = [row async for batch in rows.batches() for row in batch.rows]
        assert (listed["count"], found) == (2, [("a", Decimal("2.00")), ("c", Decimal("1.00"))])
        assert (await shop.do("Product.list", limit=Delivered(0)))["count"] == 0
        assert await shop.do("Product.count", filter={"price": {"$gt": Delivered(1)}}) == {"count": 2}
        assert await shop.do("Product.count") == {"count": 3}

    asyncio.run(work())


@pytest.mark.parametrize(("arguments", "code"), [({"sku": Delivered("x")}, "DF511"), ({"filter": {}}, "DF512")])
def test_a_node_for_one_row_takes_no_other_number(engine: AsyncEngine, arguments: dict[str, Any], code: str) -> None:
    shop = Shop(engine)

    async def work() -> None:
        await shop.prepare()
        for sku in "ab":
            await shop.do("Product.create", sku=Delivered(sku), price=Delivered(1))
        with pytest.raises(StepError) as caught:
            await shop.do("Product.delete", **arguments)
        assert caught.value.problem.code == code
        assert await shop.do("Product.count") == {"count": 2}

    asyncio.run(work())


def test_what_fails_leaves_nothing_behind(engine: AsyncEngine) -> None:
    shop = Shop(engine)

    async def work() -> None:
        await shop.prepare()
        with pytest.raises(RuntimeError):
            async with open_session(engine, shop.tables) as session:
                table = session.table(shop.models["Product"])
                await session.execute(table.insert().values(sku="a", price=1, created_at=NOW, updated_at=NOW))
                raise RuntimeError
        assert await shop.do("Product.count") == {"count": 0}

    asyncio.run(work())
