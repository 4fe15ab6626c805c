"""A softly deleted row is hidden from everything that does not ask for it, and keeps nothing but its key."""

import asyncio

import pytest
from featured import NOW, Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.errors import StepError
from schemas.types import Delivered

FEATURES = "{soft_delete: true, versioned: true}"
DATA = Delivered([{"sku": sku, "price": price} for sku, price in [("a", 1), ("b", 2), ("c", 3)]])


async def stocked(engine: AsyncEngine, on_delete: str = "restrict") -> Shop:
    """Products a, b, c, of which b is deleted."""
    shop = await Shop(engine, FEATURES, on_delete).prepare()
    await shop.do("Product.bulk_create", data=DATA)
    await shop.do("Product.delete", **given(sku="b"))
    return shop


def test_a_delete_is_an_update_that_counts(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        b = (await shop.stored())[1]
        assert (b["sku"], b["deleted_at"], b["updated_at"], b["version"]) == ("b", NOW, NOW, 2)
        assert await shop.do("Product.bulk_delete", "{filter: {sku: a}}") == {"deleted": 1}
        assert await shop.do("Product.bulk_delete", ids=Delivered([1, 2, 3])) == {"deleted": 1}
        assert [row["version"] for row in await shop.stored()] == [2, 2, 2]

    asyncio.run(work())


def test_a_deleted_row_is_hidden_from_reads(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        assert await shop.rows("Product.list", "{fields: [sku]}") == [("a",), ("c",)]
        assert await shop.rows("Product.list", "{fields: [sku], include_deleted: true}") == [("a",), ("b",), ("c",)]
        assert await shop.do("Product.count", "{filter: {$or: [{sku: b}, {sku: c}]}}") == {"count": 1}
        assert await shop.do("Product.count", "{include_deleted: true}") == {"count": 3}
        total = "{aggregate: {total: {$sum: price}}"
        assert await shop.do("Product.aggregate", total + "}") == {"total": 4}
        assert await shop.do("Product.aggregate", total + ", include_deleted: true}") == {"total": 6}
        groups = await shop.rows("Product.aggregate", "{group_by: [sku], aggregate: {n: {$count: '*'}}}")
        assert groups == [("a", 1), ("c", 1)]
        assert await shop.do("Product.read", missing="null", **given(sku="b")) is None
        assert (await shop.do("Product.read", "{include_deleted: true}", **given(sku="b")))["id"] == 2

    asyncio.run(work())


def test_a_deleted_row_is_hidden_from_writes(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        for node in ("Product.update", "Product.delete"):
            with pytest.raises(StepError) as caught:
                await shop.do(node, "{update: {stock: 0}}" if "update" in node else "{}", **given(id=2))
            assert caught.value.error_class == "not_found"
        assert await shop.do("Product.bulk_update", "{filter: {}, all_rows: true, update: {stock: 0}}") == {
            "updated": 2
        }
        rows = Delivered([{"sku": "a", "stock": 1}, {"sku": "b", "stock": 1}])
        assert await shop.do("Product.bulk_update", "{key: [sku]}", data=rows) == {"updated": 1, "missing": 1}
        assert [row["stock"] for row in await shop.stored()] == [1, 7, 0]

    asyncio.run(work())


def test_a_deleted_row_frees_its_unique_values(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        made = await shop.do("Product.upsert", "{key: [sku]}", **given(sku="b", price=5))
        assert (made["created"], made["id"], made["version"]) == (True, 4, 1)
        changed = await shop.do("Product.upsert", "{key: [sku]}", **given(sku="b", price=6))
        assert (changed["created"], changed["id"], changed["version"]) == (False, 4, 2)
        done = await shop.do("Product.bulk_upsert", "{key: [sku]}", data=DATA)
        assert done == {"created": 0, "updated": 3}
        await shop.do("Product.delete", **given(sku="c"))
        done = await shop.do("Product.bulk_create", "{conflict_resolution: skip, return_ids: true}", data=DATA)
        assert (done["created"], done["skipped"], done["ids"][:2]) == (1, 2, [1, 4])
        await shop.do("Product.delete", **given(sku="c"))
        done = await shop.do("Product.bulk_create", "{rejects: collect}", data=DATA)
        assert (done["created"], done["reject_count"]) == (1, 2)

    asyncio.run(work())


def test_a_deleted_row_comes_back_or_goes_for_good(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        back = await shop.do("Product.update", "{restore: true, update: {stock: 1}}", **given(sku="b"))
        assert (back["deleted_at"], back["stock"], back["version"]) == (None, 1, 3)
        with pytest.raises(StepError) as caught:
            await shop.do("Product.update", "{restore: true}", **given(sku="a"))
        assert caught.value.error_class == "not_found"
        await shop.do("Product.bulk_delete", "{filter: {sku: {$ne: a}}}")
        assert await shop.do("Product.bulk_update", "{restore: true, filter: {sku: c}}") == {"updated": 1}
        await shop.do("Product.delete", "{hard: true, include_deleted: true}", **given(sku="b"))
        await shop.do("Product.bulk_delete", "{hard: true, filter: {sku: a}}")
        assert [row["sku"] for row in await shop.stored()] == ["c"]

    asyncio.run(work())


@pytest.mark.parametrize("on_delete", ["restrict", "cascade", "set_null"])
def test_what_references_a_deleted_row_does_as_it_says(engine: AsyncEngine, on_delete: str) -> None:
    async def work() -> None:
        shop = await Shop(engine, FEATURES, on_delete).prepare()
        await shop.do("Maker.create", **given(name="m"))
        await shop.do("Product.bulk_create", data=DATA, **given(maker_id=1))
        if on_delete == "restrict":
            with pytest.raises(StepError) as caught:
                await shop.do("Maker.delete", **given(id=1))
            assert caught.value.problem.code == "DF542"
            await shop.do("Product.bulk_delete", "{filter: {}, all_rows: true}")
        await shop.do("Maker.delete", **given(id=1))
        assert await shop.do("Maker.count") == {"count": 0}
        rows = await shop.rows("Product.list", "{fields: [maker_id, version]}")
        assert rows == ([(None, 2)] * 3 if on_delete == "set_null" else [])

    asyncio.run(work())


def test_a_primary_key_is_given_once(engine: AsyncEngine) -> None:
    text = "models:\n  Note: {features: {soft_delete: true}, fields: {code: {type: string, primary_key: true}, n: integer}}"

    async def work() -> None:
        shop = await Shop(engine, text=text).prepare()
        await shop.do("Note.create", **given(code="x", n=1))
        await shop.do("Note.delete", **given(code="x"))
        data = Delivered([{"code": "x", "n": 2}, {"code": "y", "n": 2}])
        for node, arguments in [("Note.upsert", given(code="x", n=2)), ("Note.bulk_upsert", {"data": data})]:
            with pytest.raises(StepError) as caught:
                await shop.do(node, **arguments)
            assert caught.value.problem.code == "DF540"
        done = await shop.do("Note.bulk_create", "{rejects: collect}", data=data)
        assert (done["created"], done["reject_count"]) == (1, 1)

    asyncio.run(work())
