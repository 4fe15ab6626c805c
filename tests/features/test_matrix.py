"""Every feature, and all of them together, with every kind of node on both databases: a feature changes nothing that it
is not about, and what it is about holds whatever the kind.
"""

import asyncio
import json
from typing import Any

import pytest
import sqlalchemy as sa
from featured import Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.audit.trail import ROW
from runner.audit.verify import verify
from runner.features import ORDER
from runner.nodes import MODEL_KINDS
from schemas.types import Delivered


def spelled(name: str) -> str:
    """A feature as it stands in the file."""
    return "encryption: {fields: [extra], searchable: [SEARCHED]}" if name == "encryption" else f"{name}: true"


FEATURES = [f"{{{spelled(feature.name)}}}" for feature in ORDER]
FEATURES.append("{" + ", ".join(spelled(feature.name) for feature in ORDER) + "}")
DATA = Delivered([{"sku": sku, "price": price, "stock": 3} for sku, price in [("a", 5), ("n", 6)]])
STEPS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "create": [("{}", given(sku="n", price=1, extra={"k": [1, None]}))],
    "read": [
        ("{}", given(sku="b")),
        ("{filter: {price: {$gt: 2}}}", {}),
        ("{}", {**given(sku="?"), "missing": "null"}),
    ],
    "update": [("{update: {stock: {$inc: 2}}}", given(sku="a")), ("{filter: {price: 2}, update: {price: 0}}", {})],
    "delete": [("{}", given(sku="a"))],
    "upsert": [("{key: [sku]}", given(sku=sku, price=9, stock=0)) for sku in "an"],
    "list": [("{order_by: [-price], limit: 2, offset: 1}", {}), ("{filter: {sku: {$in: [a, c]}}}", {})],
    "count": [("{}", {}), ("{filter: {$not: {price: 2}}}", {})],
    "aggregate": [
        ("{aggregate: {n: {$count: '*'}, sum: {$sum: price}, mean: {$avg: stock}}}", {}),
        ("{group_by: [stock], aggregate: {n: {$count: '*'}}, having: {n: {$gt: 1}}}", {}),
    ],
    "bulk_create": [("{}", {"data": Delivered([{"sku": "x", "price": 1}, {"sku": "y", "price": 2}])})]
    + [
        (f"{{conflict_resolution: {word}{', key: [sku]' * (word == 'upsert')}}}", {"data": DATA})
        for word in ("skip", "upsert")
    ]
    + [("{rejects: collect}", {"data": DATA})],
    "bulk_update": [
        ("{filter: {price: {$lt: 3}}, update: {stock: 0}}", {}),
        ("{filter: {}, all_rows: true, limit: 2, update: {stock: 1}}", {}),
        ("{key: [sku]}", {"data": DATA}),
    ],
    "bulk_delete": [("{filter: {price: {$gte: 2}}, limit: 1}", {}), ("{filter: {}, all_rows: true}", {})],
    "bulk_upsert": [("{key: [sku]}", {"data": DATA}), ("{key: [sku], update: [price]}", {"data": DATA})],
}
WRITES = [kind for kind, machine in MODEL_KINDS.items() if machine.writes]
OWN = ("sku", "price", "stock", "maker_id", "extra")


async def stocked(engine: AsyncEngine, features: str) -> Shop:
    """Products a, b, c; where a feature hides rows, others with the same values that it hides."""
    shop = await Shop(engine, features, tenant="acme").prepare()
    three = Delivered([{"sku": sku, "price": price} for sku, price in [("a", 1), ("b", 2), ("c", 3)]])
    if "multi_tenant" in features:
        await shop.of("beta").do("Product.bulk_create", data=three)
    if "soft_delete" in features:
        await shop.do("Product.bulk_create", data=three)
        await shop.do("Product.bulk_delete", "{filter: {}, all_rows: true}")
    await shop.do("Product.bulk_create", data=three)
    return shop


async def plain(value: Any) -> Any:
    """An output without what is a feature's own."""
    if hasattr(value, "batches"):
        return [await plain(dict(zip(b.columns, row, strict=True))) async for b in value.batches() for row in b.rows]
    if isinstance(value, dict) and "sku" in value:
        return {name: value[name] for name in OWN if name in value} | {k: v for k, v in value.items() if k == "created"}
    return {k: await plain(v) for k, v in value.items()} if isinstance(value, dict) else value


async def life(shop: Shop, kind: str) -> list[Any]:
    """What the steps of a kind give, and the rows there are after each."""
    seen = []
    for text, arguments in STEPS[kind]:
        seen.append(await plain(await shop.do(f"Product.{kind}", text, **arguments)))
        rows = (await plain(await shop.do("Product.list")))["rows"]
        seen.append(sorted(rows, key=lambda row: row["sku"]))
    return seen


def recorded(name: str, value: Any) -> Any:
    """A cell of SQLite as its trail has it."""
    if isinstance(value, bytes):
        return value.hex().upper()
    return json.loads(value) if name == "extra" and value else value


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("features", ["{audit_log: true}", FEATURES[-1]])
def test_a_table_can_be_told_from_its_trail(engine: AsyncEngine, features: str, kind: str) -> None:
    async def work() -> None:
        shop = await stocked(engine, features)
        await life(shop, kind)
        told: dict[str, Any] = {}
        async with engine.connect() as connection:
            assert not (await verify(connection)).faults
            for row in await connection.execute(
                sa.select(ROW.c.key, ROW.c.before, ROW.c.after).order_by(ROW.c.position)
            ):
                assert told.get(row.key) == (json.loads(row.before) if row.before else None)
                told[row.key] = json.loads(row.after) if row.after else None
            sets = "SELECT to_json(r)::text FROM product r" if engine.dialect.name == "postgresql" else None
            if sets:
                rows = map(json.loads, (await connection.execute(sa.text(sets))).scalars())
            else:
                found = (await connection.execute(sa.text("SELECT * FROM product"))).mappings()
                rows = ({name: recorded(name, cell) for name, cell in row.items()} for row in found)
            stored = {str(row["id"]): row for row in rows}
        assert {key: row for key, row in told.items() if row is not None} == stored

    asyncio.run(work())


def test_no_kind_is_left_out() -> None:
    assert list(STEPS) == list(MODEL_KINDS)


@pytest.mark.parametrize("kind", MODEL_KINDS)
@pytest.mark.parametrize("features", FEATURES)
def test_a_kind_does_the_same_with_every_feature(engine: AsyncEngine, features: str, kind: str) -> None:
    async def work() -> None:
        shop = await stocked(engine, features)
        hidden = [row for row in await shop.stored() if row.get("deleted_at") or row.get("tenant_id", "acme") != "acme"]
        assert len(hidden) == 3 * ("soft_delete" in features) + 3 * ("multi_tenant" in features)
        with_it = await life(shop, kind)
        stored = {row["id"]: row for row in await shop.stored()}
        assert [stored[row["id"]] for row in hidden] == hidden, "a hidden row was touched"
        async with engine.begin() as connection:
            await connection.run_sync(next(iter(shop.tables.values())).metadata.drop_all)
        assert with_it == await life(await stocked(engine, "{}"), kind)

    asyncio.run(work())
