"""No change without its row, no row without its change, and a chain that shows whatever is done to it."""

import asyncio
import json
from typing import Any

import pytest
import sqlalchemy as sa
from featured import Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.audit.trail import ENTRY, HEAD, ROW
from runner.audit.triggers import track, untracked_models
from runner.audit.verify import Change, Verdict, life_of, verify
from schemas.types import Delivered

FEATURES = "{audit_log: true, soft_delete: true, versioned: true}"
DATA = Delivered([{"sku": sku, "price": 1} for sku in "abc"])


async def verdict(shop: Shop, head: str | None = None) -> Verdict:
    async with shop.engine.connect() as connection:
        return await verify(connection, head)


async def recorded(shop: Shop) -> list[tuple[str, str, str]]:
    """Model, key and action of every recorded change, in their order."""
    async with shop.engine.connect() as connection:
        rows = await connection.execute(sa.select(ROW.c.model, ROW.c.key, ROW.c.action).order_by(ROW.c.position))
        return [(row.model, row.key, row.action) for row in rows]


async def spoil(shop: Shop, *statements: Any) -> None:
    async with shop.engine.begin() as connection:
        for statement in statements:
            await connection.execute(statement)


async def lived(engine: AsyncEngine) -> Shop:
    """A shop in which five steps changed rows."""
    shop = await Shop(engine, FEATURES).prepare()
    await shop.do("Product.bulk_create", data=DATA)
    await shop.do("Product.update", "{update: {price: 2}}", **given(sku="a"))
    await shop.do("Product.delete", **given(sku="b"))
    await shop.do("Product.bulk_update", "{filter: {}, all_rows: true, update: {stock: 0}}")
    await shop.do("Product.bulk_delete", "{filter: {sku: c}, hard: true}")
    return shop


def test_every_change_is_recorded_with_before_and_after(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await lived(engine)
        assert shop.head is not None
        assert await verdict(shop, shop.head) == Verdict(5, 8, (("", shop.head),), ())
        async with engine.connect() as connection:
            life = [change async for change in life_of(connection, shop.models["Product"], (1,), None)]
        assert [(c.action, c.actor, c.run_id, c.step_id) for c in life] == [
            ("insert", "ann", "run-1", "step"), ("update", "ann", "run-1", "step"), ("update", "ann", "run-1", "step"),
        ]  # fmt: skip
        assert life[0].fields["sku"] == (None, "a")
        assert {k: v for k, v in life[1].fields.items() if k != "updated_at"} == {"price": (1, 2), "version": (1, 2)}
        assert life[2].fields["stock"] == (7, 0)

    asyncio.run(work())


def test_what_changes_nothing_or_fails_leaves_no_entry(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await Shop(engine, FEATURES).prepare()
        assert await shop.do("Product.bulk_update", "{filter: {sku: z}, update: {stock: 1}}") == {"updated": 0}
        assert shop.head is None
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            await shop.do("Product.bulk_create", data=Delivered([{"sku": "x", "price": 1}] * 2))
        assert await verdict(shop) == Verdict(0, 0, (), ())

    asyncio.run(work())


def test_a_cascade_of_the_database_is_recorded(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await Shop(engine, "{audit_log: true}", "cascade").prepare()
        await shop.do("Maker.create", **given(name="m"))
        await shop.do("Product.bulk_create", data=DATA, **given(maker_id=1))
        await shop.do("Maker.delete", **given(id=1))
        assert sorted((await recorded(shop))[4:]) == [
            ("Maker", "1", "delete"), *(("Product", str(n), "delete") for n in (1, 2, 3)),
        ]  # fmt: skip
        assert not (await verdict(shop)).faults

    asyncio.run(work())


def test_each_tenant_has_a_chain(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await Shop(engine, "{audit_log: true, multi_tenant: true}", tenant="acme").prepare()
        await shop.do("Product.bulk_create", data=DATA)
        beta = shop.of("beta")
        await beta.do("Product.bulk_create", data=DATA)
        await shop.do("Product.bulk_delete", "{filter: {}, all_rows: true}")
        found = await verdict(shop)
        assert (found.entries, found.rows, found.faults) == (3, 9, ())
        assert [(tenant, head.partition(":")[0]) for tenant, head in found.heads] == [("acme", "2"), ("beta", "1")]
        async with engine.connect() as connection:
            model = shop.models["Product"]
            assert len([c async for c in life_of(connection, model, (1,), "acme")]) == 2
            assert not [c async for c in life_of(connection, model, (1,), "beta")]

    asyncio.run(work())


def entry(number: int) -> Any:
    return sa.select(ENTRY.c.id).where(ENTRY.c.number == number).scalar_subquery()


LAST = ENTRY.c.number == 5
SPOILS: dict[str, tuple[list[Any], str]] = {
    "a value": ([sa.update(ROW).where(ROW.c.position == 2).values(after=json.dumps({"sku": "z"}))], "entry 1: its rows were changed"),
    "a row": ([sa.delete(ROW).where(ROW.c.position == 2)], "entry 1: it has 2 rows, 3 were written"),
    "a new row": (
        [sa.insert(ROW).from_select(["entry", "model", "key", "action"], sa.select(entry(2), *(sa.literal(x) for x in ("Product", "1", "delete"))))],
        "entry 2: it has 2 rows, 1 were written",
    ),
    "a moved row": ([sa.update(ROW).where(ROW.c.position == 4).values(entry=entry(3))], "entry 2: it has 0 rows, 1 were written"),
    "an order": ([sa.update(ROW).where(ROW.c.position == 1).values(position=99)], "entry 1: its rows were changed"),
    "an actor": ([sa.update(ENTRY).where(LAST).values(actor="bob")], "entry 5: the entry was changed"),
    "an entry": ([sa.delete(ENTRY).where(ENTRY.c.number == 3)], "entry 4: the entry before it is missing"),
    "the end": ([sa.delete(ENTRY).where(LAST)], "the chain does not end at its head"),
    "the end and the head": (
        [
            sa.delete(ROW).where(ROW.c.entry == entry(5)), sa.delete(ENTRY).where(LAST),
            sa.update(HEAD).values(number=4, hash=sa.select(ENTRY.c.hash).where(ENTRY.c.number == 4).scalar_subquery()),
        ],
        "the head that was given is in no chain: the end was cut off, or it is of another database",
    ),
    "a change by another program": (
        [sa.text("UPDATE product SET stock = 5 WHERE id = 1")], "1 rows were changed by no step of dfrun",
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILS)
def test_whatever_is_done_to_the_trail_shows(engine: AsyncEngine, spoilt: str) -> None:
    async def work() -> None:
        shop = await lived(engine)
        statements, fault = SPOILS[spoilt]
        await spoil(shop, *statements)
        assert fault in (await verdict(shop, shop.head)).faults

    asyncio.run(work())


def test_triggers_that_are_missing_are_found_and_made(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await Shop(engine, "{audit_log: true}").prepare()
        async with engine.begin() as connection:
            assert await untracked_models(connection, shop.models, shop.tables) == []
            name = "dfrun_audit_insert_%" if engine.dialect.name == "postgresql" else "dfrun_audit_product_insert_%"
            find = "SELECT tgname FROM pg_trigger WHERE tgname LIKE '{}' AND tgrelid = 'product'::regclass"
            if engine.dialect.name == "sqlite":
                find = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '{}'"
            found = (await connection.execute(sa.text(find.format(name)))).scalar_one()
            on = " ON product" if engine.dialect.name == "postgresql" else ""
            await connection.execute(sa.text(f"DROP TRIGGER {found}{on}"))
            assert await untracked_models(connection, shop.models, shop.tables) == ["Product"]
            await track(connection, shop.models, shop.tables, ["Product"])
            assert await untracked_models(connection, shop.models, shop.tables) == []
        await shop.do("Product.create", **given(sku="a", price=1))
        assert await recorded(shop) == [("Product", "1", "insert")]

    asyncio.run(work())


def test_a_life_names_who_did_what() -> None:
    from runner.report import change_text

    change = Change(None, None, None, None, "update", {"ssn": ("a", "b"), "n": (1, 2)})
    assert change_text(change, {"ssn"}) == "unknown  update  by no step of dfrun\n  ssn: (hidden)\n  n: 1 → 2"
