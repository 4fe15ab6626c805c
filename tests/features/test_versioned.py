"""Every write path counts a row's version up by one, and a writer may say which one it has seen."""

import asyncio

import pytest
from featured import Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.errors import StepError
from schemas.types import Delivered

DATA = Delivered([{"sku": sku, "price": 1} for sku in "ab"])
WRITES = [
    ("Product.update", "{update: {stock: 1}}", given(sku="a"), [2, 1]),
    ("Product.upsert", "{key: [sku]}", given(sku="a", price=2), [2, 1]),
    ("Product.bulk_update", "{filter: {sku: b}, update: {stock: 1}}", {}, [1, 2]),
    ("Product.bulk_update", "{filter: {sku: {$in: [a, b]}}, update: {stock: 1}, limit: 1}", {}, [2, 1]),
    ("Product.bulk_update", "{key: [sku]}", {"data": DATA}, [2, 2]),
    ("Product.bulk_upsert", "{key: [sku]}", {"data": DATA}, [2, 2]),
    ("Product.bulk_upsert", "{key: [sku], update: [price]}", {"data": DATA}, [2, 2]),
    ("Product.bulk_create", "{conflict_resolution: upsert, key: [sku]}", {"data": DATA}, [2, 2]),
    ("Product.bulk_create", "{conflict_resolution: skip}", {"data": DATA}, [1, 1]),
]


@pytest.mark.parametrize(("node", "text", "arguments", "versions"), WRITES)
def test_every_write_counts(
    engine: AsyncEngine, node: str, text: str, arguments: dict[str, object], versions: list[int]
) -> None:
    async def work() -> None:
        shop = await Shop(engine, "{versioned: true}").prepare()
        await shop.do("Product.bulk_create", data=DATA)
        await shop.do(node, text, **arguments)
        assert [row["version"] for row in await shop.stored()] == versions

    asyncio.run(work())


@pytest.mark.parametrize("node", ["Product.update", "Product.delete"])
def test_a_writer_says_which_version_it_has_seen(engine: AsyncEngine, node: str) -> None:
    async def work() -> None:
        shop = await Shop(engine, "{versioned: true}").prepare()
        await shop.do("Product.create", **given(sku="a", price=1))
        text = "{update: {stock: 1}}" if node == "Product.update" else "{}"
        with pytest.raises(StepError) as caught:
            await shop.do(node, text, **given(sku="a", expected_version=3))
        assert caught.value.error_class == "conflict"
        assert caught.value.problem.what == "Product: the row has version 1, version 3 was expected"
        assert [row["version"] for row in await shop.stored()] == [1]
        await shop.do(node, text, **given(sku="a", expected_version=1))
        assert [row["version"] for row in await shop.stored()] == ([2] if node == "Product.update" else [])

    asyncio.run(work())
