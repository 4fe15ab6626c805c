"""Nothing crosses tenants: no row, count, key or message."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from featured import Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.dialects.errors import is_database_error, step_error
from runner.errors import StepError
from runner.nodes import MODEL_KINDS
from runner.sql.scoping import UnscopedError, refuse_unscoped
from schemas.types import Delivered, ValueProblem

DATA = Delivered([{"sku": sku, "price": price} for sku, price in [("a", 1), ("b", 2)]])


async def two(engine: AsyncEngine, features: str = "{multi_tenant: true}", on_delete: str = "restrict") -> Shop:
    """Two tenants with the same products."""
    shop = await Shop(engine, features, on_delete, tenant="acme").prepare()
    for tenant in ("acme", "beta"):
        await shop.of(tenant).do("Product.bulk_create", data=DATA)
    return shop


def test_keys_and_uniqueness_are_a_tenants_own(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await two(engine)
        assert [(row["tenant_id"], row["sku"]) for row in await shop.stored()] == [
            ("acme", "a"), ("acme", "b"), ("beta", "a"), ("beta", "b"),
        ]  # fmt: skip
        done = await shop.do("Product.upsert", "{key: [sku]}", **given(sku="a", price=9))
        assert not done["created"]
        assert await shop.do("Product.bulk_upsert", "{key: [sku]}", data=DATA) == {"created": 0, "updated": 2}
        assert await shop.do("Product.bulk_update", "{key: [sku]}", data=DATA) == {"updated": 2, "missing": 0}
        assert await shop.do("Product.bulk_delete", ids=Delivered([1, 3])) == {"deleted": 1}
        assert await shop.of("beta").do("Product.count") == {"count": 2}
        assert await shop.do("Product.read", missing="null", **given(id=3)) is None

    asyncio.run(work())


def test_a_reference_cannot_reach_another_tenants_row(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await two(engine)
        maker = await shop.of("beta").do("Maker.create", **given(name="m"))
        with pytest.raises(Exception) as caught:
            await shop.do("Product.create", **given(sku="z", price=1, maker_id=maker["id"]))
        assert step_error(caught.value, shop.models).problem.code == "DF581"
        rows = Delivered([{"sku": "z", "price": 1, "maker_id": maker["id"]}])
        assert (await shop.do("Product.bulk_create", "{rejects: collect}", data=rows))["reject_count"] == 1

    asyncio.run(work())


@pytest.mark.parametrize("on_delete", ["cascade", "set_null"])
def test_a_reference_that_is_set_to_null_keeps_its_tenant(engine: AsyncEngine, on_delete: str) -> None:
    async def work() -> None:
        shop = await Shop(engine, "{multi_tenant: true}", on_delete, tenant="acme").prepare()
        await shop.do("Maker.create", **given(name="m"))
        await shop.do("Product.bulk_create", data=DATA, **given(maker_id=1))
        await shop.do("Maker.delete", **given(id=1))
        rows = [(row["tenant_id"], row["maker_id"]) for row in await shop.stored()]
        assert rows == ([("acme", None)] * 2 if on_delete == "set_null" else [])

    asyncio.run(work())


@pytest.mark.parametrize("node", ["Product.bulk_create", "Product.bulk_upsert", "Product.bulk_update"])
def test_a_tenant_in_the_data_is_refused(engine: AsyncEngine, node: str) -> None:
    async def work() -> None:
        shop = await two(engine)
        rows = Delivered([{"sku": "a", "price": 1, "tenant_id": "beta"}])
        with pytest.raises((ValueProblem, ExceptionGroup)):
            await shop.do(node, "{key: [sku]}" if node != "Product.bulk_create" else "{}", data=rows)
        with pytest.raises((ValueProblem, ExceptionGroup)):
            await shop.do("Product.update", "{update: {tenant_id: beta}}", **given(sku="a"))

    asyncio.run(work())


# --- the second look ---------------------------------------------------------------------------------------------

TABLE = sa.Table("t", sa.MetaData(), sa.Column("id"), sa.Column("tenant_id"), info={"tenant_id": True})
OTHER = TABLE.alias()
OWN = TABLE.c.tenant_id == "acme"
UNSCOPED = {
    "select": sa.select(TABLE.c.id),
    "count": sa.select(sa.func.count()).select_from(TABLE),
    "another tenant": sa.select(TABLE.c.id).where(TABLE.c.tenant_id == "beta"),
    "under or": sa.select(TABLE.c.id).where(sa.or_(OWN, TABLE.c.id == 1)),
    "under not": sa.select(TABLE.c.id).where(~OWN),
    "an alias": sa.select(OTHER.c.id, TABLE.c.id).where(OWN),
    "a subquery": sa.select(sa.select(TABLE.c.id).subquery().c.id),
    "exists": sa.select(sa.literal(1)).where(sa.exists().where(TABLE.c.id == 1)),
    "an outer join": sa.select(sa.literal(1)).select_from(sa.table("x").outerjoin(TABLE, OWN)),
    "a CTE": sa.select(sa.select(TABLE.c.id).cte().c.id),
    "a union": sa.union_all(sa.select(TABLE.c.id).where(OWN), sa.select(TABLE.c.id)),
    "update": sa.update(TABLE).values(id=1),
    "update in a subselect": sa.update(TABLE).where(OWN, TABLE.c.id.in_(sa.select(OTHER.c.id))).values(id=1),
    "delete": sa.delete(TABLE).where(TABLE.c.id == 1),
    "insert": sa.insert(TABLE).values(id=1),
    "insert for another": sa.insert(TABLE).values(id=1, tenant_id="beta"),
    "insert from select": sa.insert(TABLE).from_select(["id"], sa.select(sa.literal(1))),
    "text": sa.text("select * from t"),
}  # fmt: skip


@pytest.mark.parametrize("statement", UNSCOPED.values(), ids=list(UNSCOPED))
def test_a_statement_without_its_scope_is_not_sent(statement: Any) -> None:
    with pytest.raises(UnscopedError):
        refuse_unscoped(statement, "acme")
    refuse_unscoped(sa.select(TABLE.c.id).where(OWN), "acme")
    with pytest.raises(UnscopedError):
        refuse_unscoped(sa.select(TABLE.c.id).where(OWN), None)


@pytest.mark.parametrize("text", ['SELECT * FROM "product"', "SELECT f('product')", "SELECT 1 FROM PRODUCT"])
def test_a_text_that_names_a_table_of_tenants_is_not_sent(engine: AsyncEngine, text: str) -> None:
    async def work() -> None:
        shop = await two(engine)
        with pytest.raises((UnscopedError, ValueProblem)):
            await shop.do("sql.query", sql=text)

    asyncio.run(work())


def test_a_text_that_names_a_view_over_a_table_of_tenants_is_not_sent(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await two(engine)
        async with engine.begin() as connection:
            for text in ("seen AS SELECT sku FROM product", "above AS SELECT sku FROM seen", "one AS SELECT 1 AS n"):
                await connection.exec_driver_sql(f"CREATE VIEW {text}")
        try:
            for text in ("SELECT * FROM seen", 'SELECT * FROM one, "above"', "SELECT (SELECT max(sku) FROM ABOVE)"):
                with pytest.raises(StepError, match="DF546"):
                    await shop.do("sql.query", sql=text)
            with pytest.raises(StepError, match="DF546"):
                await shop.do("sql.execute", sql="DELETE FROM seen WHERE 1 = 0")
            assert await shop.rows("sql.query", sql="SELECT n FROM one") == [(1,)]
        finally:
            async with engine.begin() as connection:
                for name in ("above", "seen", "one"):
                    await connection.exec_driver_sql(f"DROP VIEW {name}")

    asyncio.run(work())


# --- two tenants side by side ------------------------------------------------------------------------------------

ITEMS = """\
models:
  Box:
    features: {multi_tenant: true, soft_delete: true, versioned: true}
    fields: {code: {type: string, primary_key: true}, size: {type: integer, default: 1}}
  Item:
    features: {multi_tenant: true, soft_delete: true}
    fields:
      code: {type: string, primary_key: true}
      sku: {type: string, unique: true}
      n: {type: integer, default: 0}
      box: {type: string, nullable: true, references: Box.code, on_delete: set_null}
    indexes: [{fields: [sku, n], unique: true}]
"""
Step = tuple[str, str, dict[str, Any]]


def steps(chance: random.Random, count: int) -> Iterator[Step]:
    """Random steps over all kinds, with so few values that keys meet all the time."""

    def code() -> str:
        return chance.choice("pqrs")

    def item() -> dict[str, Any]:
        box = chance.choice([None, code()])
        return {"code": code(), "sku": chance.choice("abc"), "n": chance.randrange(3), "box": box}

    filters = ["{}", "{n: {$gte: 1}}", "{sku: a}", "{$not: {sku: b}}", "{$or: [{n: 0}, {code: p}]}", "{box: null}"]
    makers: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
        "create": lambda: ("{}", given(**item())),
        "read": lambda: ("{}", given(**chance.choice([{"code": code()}, {"sku": chance.choice("abc")}]))),
        "update": lambda: (f"{{update: {{n: {chance.randrange(3)}}}}}", given(code=code())),
        "delete": lambda: (f"{{hard: {chance.choice(['true', 'false'])}}}", given(code=code())),
        "upsert": lambda: ("{{key: [{}]}}".format(chance.choice(["sku", "code"])), given(**item())),
        "list": lambda: (f"{{filter: {chance.choice(filters)}, limit: 3}}", {}),
        "count": lambda: (f"{{filter: {chance.choice(filters)}, include_deleted: true}}", {}),
        "aggregate": lambda: ("{group_by: [sku], aggregate: {n: {$sum: n}, all: {$count: '*'}}}", {}),
        "bulk_create": lambda: (
            "{{conflict_resolution: {}, rejects: collect}}".format(chance.choice(["error", "skip"])),
            {"data": Delivered([item() for _ in range(3)])},
        ),
        "bulk_update": lambda: (f"{{filter: {chance.choice(filters[1:])}, update: {{n: 1}}, limit: 2}}", {}),
        "bulk_delete": lambda: (f"{{filter: {chance.choice(filters[1:])}, limit: 1}}", {}),
        "bulk_upsert": lambda: ("{key: [sku]}", {"data": Delivered([item() for _ in range(3)])}),
    }
    assert set(makers) == set(MODEL_KINDS)
    for _ in range(count):
        if chance.random() < 0.2:
            yield "Box.create", "{}", given(code=code())
        elif chance.random() < 0.1:
            yield "Box.delete", "{hard: true}", given(code=code())
        elif chance.random() < 0.2:
            yield chance.choice(["csv.write", "jsonl.write"]), "{path: out/rows}", {}
        elif chance.random() < 0.2:
            yield "gdpr.export", "{model: Box, path: out/box.json}", given(id=code())
        elif chance.random() < 0.05:
            yield "gdpr.erase", "{model: Box}", given(id=code())
        else:
            kind = chance.choice(list(makers))
            yield f"Item.{kind}", *makers[kind]()


async def told(shop: Shop, step: Step) -> object:
    """What a tenant sees of a step: its output and the file it writes, or the words of its refusal."""
    node, text, arguments = step
    try:
        if node in ("csv.write", "jsonl.write"):
            listed = await shop.do("Item.list", "{include_deleted: true, order_by: [code]}")
            arguments = {"rows": Delivered(listed["rows"])}
        output = await shop.do(node, text, **arguments)
        if "path" in (output or {}):
            output["file"] = (shop.project / output["path"]).read_text(encoding="utf-8")
    except Exception as error:
        if is_database_error(error):
            error = step_error(error, shop.models)
        if not isinstance(error, (StepError, ValueProblem)):
            raise
        return str(error)
    return {k: [r async for b in v.batches() for r in b.rows] if hasattr(v, "batches") else v
            for k, v in (output or {}).items() if k != "tenant_id"}  # fmt: skip


async def emptied(shop: Shop) -> Shop:
    async with shop.engine.begin() as connection:
        await connection.run_sync(next(iter(shop.tables.values())).metadata.drop_all)
    return await shop.prepare()


@pytest.mark.parametrize("seed", range(3))
def test_a_tenant_sees_what_it_would_see_alone(engine: AsyncEngine, seed: int, tmp_path: Path) -> None:
    async def work() -> None:
        chance = random.Random(seed)
        life = [(chance.choice(["acme", "beta"]), step) for step in steps(chance, 45)]
        shop = await Shop(engine, text=ITEMS, tenant="acme", project=tmp_path).prepare()
        together = [(tenant, step, await told(shop.of(tenant), step)) for tenant, step in life]
        for tenant in ("acme", "beta"):
            await emptied(shop)
            for number, (owner, step, seen) in enumerate(together):
                if owner == tenant:
                    assert await told(shop.of(tenant), step) == seen, (number, step)

    asyncio.run(work())
