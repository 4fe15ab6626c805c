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

from runner.access import Access
from runner.catalog import build_catalog
from runner.data.rows import SpooledRows
from runner.declarations import load_models
from runner.dialects.errors import step_error
from runner.dialects.store import open_session
from runner.errors import StepError
from runner.features.base import Scope
from runner.nodes import resolve_node
from runner.nodes.base import Context, Subject
from runner.source import parse_document
from runner.sql.filters import Database
from runner.sql.tables import build_tables
from schemas.types import Delivered, ValueProblem, ValueType

MODELS = """\
models:
  Product:
    fields:
      sku: {type: string, unique: true}
      price: {type: decimal, precision: 12, scale: 2}
      stock: {type: integer, default: 7}
  Review:
    fields:
      sku: {type: string, references: Product.sku}
      stars: {type: integer, check: {$between: [1, 5]}}
      note: text?
      extra: json?
"""
NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)


@dataclass
class Here:
    """A running step's surroundings."""

    access: Access
    now: datetime = NOW
    done: int = 0

    def progress(self, rows: int) -> None:
        self.done += rows


def read(text: str) -> Any:
    """A YAML value as it stands under `with`."""
    return parse_document(f"v: {text}".encode(), "t").root["v"]


async def listed(rows: Any) -> list[tuple[Any, ...]]:
    return [row async for batch in rows.batches() for row in batch.rows]


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
            return cast(
                Mapping[str, Any],
                await kind.run(checked.parsed, cast(Context, Here(Access(session, Scope(NOW), self.models)))),
            )


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


PRODUCTS = [{"sku": sku, "price": Decimal(price)} for sku, price in [("a", "1.00"), ("b", "19.99"), ("c", "0.05")]]


async def stocked(engine: AsyncEngine) -> Shop:
    shop = Shop(engine)
    await shop.prepare()
    assert (await shop.do("Product.bulk_create", data=Delivered(PRODUCTS)))["created"] == 3
    return shop


@pytest.mark.parametrize(
    ("update", "price", "stock"),
    [
        ("{stock: 9}", "19.99", 9),
        ("{$inc: {stock: 2}, price: {$multiply: 0.9}}", "17.99", 9),
        ("{price: {$multiply: 0.25}}", "5.00", 7),
        ("{price: {$multiply: [{$field: price}, {$field: stock}]}}", "139.93", 7),
        ("{price: {$subtract: [1, {$field: price}]}}", "-18.99", 7),
        ("{stock: {$dec: 10}}", "19.99", -3),
        ("{price: {$min: 5}, stock: {$max: 8}}", "5.00", 8),
        ("{price: {$field: stock}}", "7.00", 7),
        ("{price: {$inc: 0.005}}", "20.00", 7),
    ],
)
def test_an_update_has_the_same_result_on_both_databases(
    engine: AsyncEngine, update: str, price: str, stock: int
) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        row = await shop.do("Product.update", sku=Delivered("b"), update=read(update))
        assert (row["price"], row["stock"]) == (Decimal(price), stock)
        assert await shop.do("Product.read", sku=Delivered("b")) == row
        many = await shop.do("Product.bulk_update", filter=read("{sku: {$ne: a}}"), update=read("{stock: 0}"))
        assert many == {"updated": 2}

    asyncio.run(work())


def test_what_overflows_changes_nothing(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        for update in ("{price: {$multiply: 10000000000}}", "{stock: {$inc: 9223372036854775807}}"):
            with pytest.raises(Exception) as caught:
                await shop.do("Product.bulk_update", filter=read("{}"), all_rows=read("true"), update=read(update))
            assert step_error(caught.value, shop.models).error_class == "constraint"
        assert await shop.do("Product.count", filter=read("{stock: 7, price: {$lt: 20}}")) == {"count": 3}

    asyncio.run(work())


def test_a_row_is_created_or_changed_by_its_key(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        changed = await shop.do("Product.upsert", sku=Delivered("a"), price=Delivered(2))
        assert (changed["id"], changed["price"], changed["stock"], changed["created"]) == (1, 2, 7, False)
        made = await shop.do("Product.upsert", sku=Delivered("z"), price=Delivered(3), key=["sku"])
        assert (made["created"], made["stock"]) == (True, 7)

    asyncio.run(work())


def test_aggregates_count_sum_and_average_exactly(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        await shop.do("Product.create", sku=Delivered("d"), price=Delivered(Decimal("1.00")), stock=Delivered(-2))
        asked = "{n: {$count: '*'}, all: {$sum: price}, mean: {$avg: price}, low: {$min: sku}, units: {$avg: stock}}"
        one = await shop.do("Product.aggregate", aggregate=read(asked))
        assert one == {
            "n": 4, "all": Decimal("22.04"), "mean": Decimal("5.51"), "low": "a", "units": Decimal("4.75"),
        }  # fmt: skip
        none = await shop.do("Product.aggregate", aggregate=read(asked), filter=read("{sku: none}"))
        assert none == {"n": 0, "all": 0, "mean": None, "low": None, "units": None}
        grouped = await shop.do(
            "Product.aggregate",
            group_by=["price"],
            aggregate=read("{n: {$count: '*'}, mean: {$avg: stock}}"),
            having=read("{n: {$gte: 1}}"),
            order_by=["-n", "price"],
            limit=read("2"),
        )
        assert await listed(grouped["rows"]) == [
            (Decimal("1.00"), 2, Decimal("2.5")),
            (Decimal("0.05"), 1, Decimal(7)),
        ]

    asyncio.run(work())


def test_bulk_rows_conflict_as_they_are_told(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        data = Delivered([{"sku": "a", "price": 5}, {"sku": "n", "price": 6}, {"sku": "n", "price": 7}])
        skipped = await shop.do("Product.bulk_create", data=data, conflict_resolution="skip", return_ids=read("true"))
        assert {k: skipped[k] for k in ("created", "skipped", "updated")} == {"created": 1, "skipped": 2, "updated": 0}
        assert skipped["ids"][0] == 1
        assert skipped["ids"][1] == skipped["ids"][2]
        upserted = await shop.do("Product.bulk_upsert", data=data, key=["sku"], update=["price"], stock=Delivered(1))
        assert upserted == {"created": 0, "updated": 3}
        rows = await shop.do("Product.list", filter=read("{sku: {$in: [a, n]}}"), fields=["sku", "price", "stock"])
        assert await listed(rows["rows"]) == [("a", 5, 7), ("n", 7, 7)]
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            await shop.do("Product.bulk_create", data=data)

    asyncio.run(work())


def test_ids_come_in_the_order_of_the_data_and_never_twice(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        data = Delivered([{"sku": f"x{n}", "price": n} for n in range(1200)])
        made = await shop.do("Product.bulk_create", data=data, return_ids=read("true"), batch_size=read("500"))
        assert made["ids"] == list(range(4, 1204))
        last = await shop.do("Product.read", sku=Delivered("x1199"))
        assert last["id"] == 1203
        assert (await shop.do("Product.create", sku=Delivered("y"), price=Delivered(1)))["id"] == 1204
        assert await shop.do("Product.bulk_delete", ids=Delivered(made["ids"])) == {"deleted": 1200}

    asyncio.run(work())


def test_rows_that_do_not_fit_are_set_aside_with_line_and_reason(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        data: list[dict[str, Any]] = [
            {"sku": "a", "stars": 5, "note": "fine", "extra": {"k": [1, None]}},
            {"sku": "nowhere", "stars": 1, "note": None},
            {"sku": "a", "stars": 9},
            {"sku": "a", "stars": "many"},
            {"sku": None, "stars": 3},
            {"sku": "b", "stars": 1, "extra": "text"},
        ]
        done = await shop.do("Review.bulk_create", data=Delivered(data), rejects="collect")
        assert (done["created"], done["reject_count"]) == (2, 4)
        told = [(line, reason) for line, reason, _ in await listed(done["rejects"])]
        assert sorted(told) == [
            (2, "sku: there is no such Product.sku"),
            (3, "stars: breaks the field's check"),
            (4, "stars: wants a whole number, got text"),
            (5, "sku: wants string, got null"),
        ]
        first = await shop.do("Review.read", id=Delivered(1))
        assert (first["note"], first["extra"]) == ("fine", {"k": [1, None]})
        again = await shop.do(
            "Product.bulk_create", data=Delivered([*PRODUCTS, PRODUCTS[0] | {"sku": "q"}]), rejects="collect"
        )
        assert (again["created"], again["reject_count"]) == (1, 3)
        with pytest.raises(StepError) as caught:
            await shop.do("Review.bulk_create", data=Delivered(data), rejects="collect", max_rejects=read("1"))
        assert caught.value.problem.code == "DF514"
        with pytest.raises(StepError) as caught:
            await shop.do("Review.bulk_create", data=Delivered(data[3:]))
        assert caught.value.problem.what == "Review: line 1: stars: wants a whole number, got text"

    asyncio.run(work())


def test_data_updates_are_applied_in_their_order(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        lines = Delivered(
            [{"sku": "a", "taken": 2}, {"sku": "b", "taken": 1}, {"sku": "a", "taken": 3}, {"sku": "?", "taken": 1}]
        )
        lines = Delivered(
            lines.value, ValueType("rows", fields={"sku": ValueType("string"), "taken": ValueType("integer")})
        )
        taken = await shop.do(
            "Product.bulk_update", data=lines, key=["sku"], update=read("{stock: {$dec: {$row: taken}}}")
        )
        assert taken == {"updated": 3, "missing": 1}
        prices = Delivered([{"sku": "a", "price": Decimal("3.33")}, {"sku": "c", "price": None}])
        with pytest.raises(StepError):
            await shop.do("Product.bulk_update", data=prices, key=["sku"])
        prices = Delivered([{"sku": "a", "price": Decimal("3.33")}])
        assert await shop.do("Product.bulk_update", data=prices, key=["sku"]) == {"updated": 1, "missing": 0}
        rows = await shop.do("Product.list", fields=["price", "stock"])
        assert await listed(rows["rows"]) == [(Decimal("3.33"), 2), (Decimal("19.99"), 6), (Decimal("0.05"), 7)]

    asyncio.run(work())


def test_a_bulk_write_takes_the_first_rows_by_key(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await stocked(engine)
        few = {"filter": read("{sku: {$ne: a}}"), "limit": read("1")}
        assert await shop.do("Product.bulk_update", update=read("{stock: 0}"), **few) == {"updated": 1}
        assert (await shop.do("Product.read", sku=Delivered("b")))["stock"] == 0
        assert await shop.do("Product.bulk_delete", **few) == {"deleted": 1}
        assert await shop.do("Product.bulk_delete", filter=read("{}"), all_rows=read("true"), limit=read("0")) == {
            "deleted": 0
        }
        assert await shop.do("Product.count") == {"count": 2}

    asyncio.run(work())


@pytest.mark.parametrize(
    ("node", "arguments", "what"),
    [
        ("Product.bulk_delete", "{}", "nothing says which rows"),
        ("Product.bulk_delete", "{filter: {}}", "an empty filter finds every row"),
        ("Product.bulk_delete", "{filter: {$and: [{}]}}", "an empty filter finds every row"),
        ("Product.bulk_delete", "{filter: {$or: [{price: 1}, {}]}}", "an empty filter finds every row"),
        ("Product.bulk_update", "{filter: {sku: a}}", "nothing says what changes"),
        ("Product.update", "{sku: a, update: {}}", "an update that changes nothing"),
        ("Product.update", "{sku: a, update: {id: 4}}", "'id' is written by dfrun alone"),
        ("Product.update", "{sku: a, update: {sku: {$inc: 1}}}", "$inc does not work on string"),
        ("Product.update", "{sku: a, update: {stock: {$inc: 1.5}}}", "wants a whole number, got '1.5'"),
        ("Product.update", "{sku: a, update: {stock: {$inc: 1, $max: 2}}}", "two operators for one field"),
        ("Product.update", "{sku: a, update: {stock: 1, $inc: {stock: 1}}}", "'stock' is changed twice"),
        ("Product.update", "{sku: a, update: {stock: {$unset: true}}}", "'stock' may not be null"),
        ("Product.update", "{sku: a, update: {stock: {$row: x}}}", "$row means something in updates with data only"),
        ("Product.update", "{sku: a, update: {prise: 1}}", "Product has no field 'prise'"),
        ("Product.upsert", "{sku: a, price: 1, key: [price]}", "[price] is no unique key of Product"),
        ("Product.aggregate", "{aggregate: {}}", "wants a mapping of names to one operator each"),
        ("Product.aggregate", "{aggregate: {n: {$sum: sku}}}", "$sum does not work on string"),
        ("Product.aggregate", "{aggregate: {n: {$count: '*'}}, limit: 1}", "limit needs group_by"),
        ("Product.bulk_create", "{data: [{sku: a, prise: 1}]}", "Product has no field 'prise' to write"),
        ("Product.bulk_create", "{data: [{sku: a, price: x}]}", "wants a decimal number, got 'x'"),
        ("Product.list", "{limit: -1}", "wants a whole number of at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_run(node: str, arguments: str, what: str) -> None:
    document = parse_document(MODELS.encode(), "models.yaml")
    models = build_catalog([(document, load_models(document))]).models
    kind, model = resolve_node(node, models)
    with pytest.raises((ValueProblem, ExceptionGroup)) as caught:
        kind.check(read(arguments), Subject(model, models, Path()))
    raised: Any = caught.value
    assert (raised.exceptions[0] if isinstance(raised, ExceptionGroup) else raised).what == what
