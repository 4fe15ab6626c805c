"""Whatever a step wrote is taken back, and what someone else wrote meanwhile stays."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.access import Access
from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.store import Store
from runner.errors import StepError
from runner.features.base import Scope
from runner.query import EVERY_ROW, Delete, Insert, Load, Read, Update, Upsert
from runner.run.recording import Recorder, packed, take_back, unpacked
from runner.source import parse_document
from runner.sql.tables import build_tables
from schemas.filters import Compare
from schemas.shapes import ModelShape
from schemas.updates import Assign, FieldOf

MODELS = """\
models:
  Product:
    fields:
      sku: {type: string, max_length: 8, primary_key: true}
      stock: {type: integer, default: 0}
      price: {type: decimal, precision: 12, scale: 2, default: 1}
      note: string?
  Ticket:
    features: {soft_delete: true, versioned: true}
    fields:
      code: {type: string, max_length: 8, unique: true}
      places: {type: integer, default: 0}
"""
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def models() -> Mapping[str, ModelShape]:
    document = parse_document(MODELS.encode(), "models.yaml")
    return build_catalog([(document, load_models(document))]).models


class Shop:
    def __init__(self, engine: AsyncEngine) -> None:
        self.models = models()
        self.tables = build_tables(self.models, "sqlite" if engine.dialect.name == "sqlite" else "postgresql")
        self.engine = engine

    async def start(self) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(next(iter(self.tables.values())).metadata.create_all)

    async def act(self, work: Any) -> Any:
        store = Store(self.engine, self.tables)
        try:
            async with store.session() as session:
                return await work(Access(session, Scope(NOW), self.models))
        finally:
            await store.close()

    async def rows(self) -> dict[str, dict[Any, dict[str, Any]]]:
        """All rows, and since when they are deleted, without what else dfrun writes itself."""

        async def read(access: Access) -> dict[str, dict[Any, dict[str, Any]]]:
            found: dict[str, dict[Any, dict[str, Any]]] = {}
            for model in self.models.values():
                names = [n for n, f in model.fields.items() if not f.managed]
                names += ["deleted_at"] * ("deleted_at" in model.fields)
                listed = await access.fetch(Read(model, tuple(names), deleted="included"))
                found[model.name] = {row[0]: dict(zip(names, row, strict=True)) for row in listed}
            return found

        return await self.act(read)  # type: ignore[no-any-return]

    async def clear(self) -> None:
        async def work(access: Access) -> None:
            for model in self.models.values():
                await access.execute(Delete(model, EVERY_ROW, hard=True, deleted="included"))
            product, ticket = self.models["Product"], self.models["Ticket"]
            for n, sku in enumerate("abcd"):
                await access.insert(Insert(product, {"sku": sku, "stock": n, "price": Decimal(n + 1), "note": None}))
            for code in ("x", "y", "z"):
                await access.insert(Insert(ticket, {"code": code, "places": 5}))
            await access.execute(Delete(ticket, Compare("code", "$eq", "z")))

        await self.act(work)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.sampled_from("efgh")),
        st.tuples(st.just("upsert"), st.sampled_from("abef"), st.integers(0, 9)),
        st.tuples(st.just("set"), st.sampled_from("abcd"), st.sampled_from(["one", None])),
        st.tuples(st.just("inc"), st.integers(0, 3), st.integers(-5, 5)),
        st.tuples(st.just("multiply"), st.sampled_from("abcd")),
        st.tuples(st.just("copy"), st.sampled_from("abcd")),
        st.tuples(st.just("delete"), st.sampled_from("abcd")),
        st.tuples(st.just("load"), st.sampled_from(["error", "skip", "upsert"]), st.lists(st.sampled_from("abijk"), unique=True)),
        st.tuples(st.just("hide"), st.sampled_from("xy")),
        st.tuples(st.just("show"), st.sampled_from("xyz"), st.integers(0, 4)),
        st.tuples(st.just("places"), st.integers(1, 4)),
        st.tuples(st.just("tickets"), st.lists(st.sampled_from("xpq"), unique=True), st.sampled_from(["skip", "upsert"])),
    ),
    max_size=6,
)  # fmt: skip


def by(model: ModelShape, name: str, step: int, operator: Any = "$add") -> Assign:
    return Assign(name, operator, (FieldOf(name, model.fields[name].type), step))


async def do(access: Access, shop: Shop, act: Sequence[Any]) -> None:
    product, ticket = shop.models["Product"], shop.models["Ticket"]
    kinds = tuple(product.fields[n].type for n in ("sku", "stock"))
    match act:
        case ("insert", sku):
            if not await access.fetch(Read(product, ("sku",), Compare("sku", "$eq", sku))):
                await access.insert(Insert(product, {"sku": sku, "stock": 7, "price": Decimal("2.50"), "note": "new"}))
        case ("upsert", sku, stock):
            values = {"sku": sku, "stock": stock, "price": Decimal(3), "note": None}
            await access.upsert(Upsert(product, values, ("sku",), (Assign("stock", "$set", (stock,)),)))
        case ("set", sku, note):
            await access.execute(Update(product, Compare("sku", "$eq", sku), (Assign("note", "$set", (note,)),)))
        case ("inc", least, step):
            changes = (by(product, "stock", step), Assign("note", "$set", ("counted",)))
            await access.execute(Update(product, Compare("stock", "$gte", least), changes))
        case ("multiply", sku):
            times = (Assign("price", "$multiply", (FieldOf("price", product.fields["price"].type), Decimal("1.5"))),)
            await access.execute(Update(product, Compare("sku", "$eq", sku), times, limit=1))
        case ("copy", sku):
            copy = (Assign("stock", "$multiply", (FieldOf("stock", product.fields["stock"].type), 2)),)
            await access.execute(Update(product, Compare("sku", "$eq", sku), copy))
        case ("delete", sku):
            await access.execute(Delete(product, Compare("sku", "$eq", sku)))
        case ("load", conflict, skus):
            there = {str(r[0]) for r in await access.fetch(Read(product, ("sku",)))}
            rows = [(sku, 9) for sku in skus if conflict != "error" or sku not in there]
            key = ("sku",) if conflict == "upsert" else ()
            await access.load(
                Load(
                    product,
                    ("sku", "stock"),
                    kinds,
                    rows,
                    {"price": Decimal(1), "note": None},
                    conflict,
                    key,
                    ("stock",),
                )
            )
        case ("hide", code):
            await access.execute(Delete(ticket, Compare("code", "$eq", code)))
        case ("show", code, step):
            changes = (by(ticket, "places", step),) if step else ()
            await access.execute(Update(ticket, Compare("code", "$eq", code), changes, deleted="only"))
        case ("places", step):
            await access.execute(Update(ticket, EVERY_ROW, (by(ticket, "places", step, "$subtract"),)))
        case ("tickets", codes, conflict):
            types = tuple(ticket.fields[n].type for n in ("code", "places"))
            key = ("code",) if conflict == "upsert" else ()
            await access.load(
                Load(ticket, ("code", "places"), types, [(c, 1) for c in codes], {}, conflict, key, ("places",))
            )


@pytest.fixture
def shop(engine: AsyncEngine) -> Shop:
    found = Shop(engine)
    asyncio.run(found.start())
    return found


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS, others=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9)), max_size=2))
def test_what_was_written_is_taken_back_and_what_others_wrote_stays(
    shop: Shop, acts: list[Any], others: list[tuple[str, int]]
) -> None:
    product = shop.models["Product"]

    async def work() -> None:
        await shop.clear()
        before = await shop.rows()

        async def step(access: Access) -> Any:
            recorder = Recorder(access)
            for act in acts:
                await do(recorder, shop, act)
            return unpacked(packed(recorder.effects))

        effects = await shop.act(step)
        deleted = {a[1] for a in acts if a[0] == "delete"}
        loaded = any(a[0] in ("load", "upsert", "copy") for a in acts)
        for sku, places in others:
            if sku in deleted or loaded:
                continue  # rows that are gone, or whose stock was set, have nothing of others to keep
            changes = (by(product, "stock", places),)
            await shop.act(
                lambda access, sku=sku, c=changes: access.execute(Update(product, Compare("sku", "$eq", sku), c))
            )
            before["Product"][sku]["stock"] += places
        await shop.act(lambda access: take_back(access, effects, shop.models))
        assert await shop.rows() == before

    asyncio.run(work())


def test_a_value_that_others_changed_since_stays(shop: Shop) -> None:
    product = shop.models["Product"]

    async def work() -> Any:
        await shop.clear()

        async def step(access: Access) -> Any:
            recorder = Recorder(access)
            both = (Assign("note", "$set", ("mine",)), Assign("price", "$set", (Decimal(99),)))
            await recorder.execute(Update(product, EVERY_ROW, both))
            return recorder.effects

        effects = await shop.act(step)
        theirs = Update(product, Compare("sku", "$eq", "a"), (Assign("note", "$set", ("theirs",)),))
        await shop.act(lambda access: access.execute(theirs))
        told = await shop.act(lambda access: take_back(access, effects, shop.models))
        rows = (await shop.rows())["Product"]
        return told.rows, told.kept, [(row["note"], row["price"]) for row in rows.values()]

    rows, kept, left = asyncio.run(work())
    assert (rows, kept) == (4, 1)
    assert sorted(left, key=lambda each: each[1]) == [("theirs", 1), (None, 2), (None, 3), (None, 4)]


@pytest.mark.parametrize("act", ["created", "deleted"])
def test_a_row_that_others_work_with_is_a_conflict(shop: Shop, act: str) -> None:
    product = shop.models["Product"]
    values = {"sku": "z", "stock": 1, "price": Decimal(1), "note": None}

    async def work() -> None:
        await shop.clear()

        async def step(access: Access) -> Any:
            recorder = Recorder(access)
            if act == "created":
                await recorder.insert(Insert(product, values))
            else:
                await recorder.execute(Delete(product, Compare("sku", "$eq", "a")))
            return recorder.effects

        effects = await shop.act(step)
        other: Any = Update(product, Compare("sku", "$eq", "z"), (Assign("note", "$set", ("theirs",)),))
        if act == "created":
            await shop.act(lambda access: access.execute(other))
        else:
            await shop.act(lambda access: access.insert(Insert(product, values | {"sku": "a"})))
        before = await shop.rows()
        with pytest.raises(StepError) as caught:
            await shop.act(lambda access: take_back(access, effects, shop.models))
        assert (caught.value.problem.code, caught.value.error_class) == ("DF570", "conflict")
        assert await shop.rows() == before

    asyncio.run(work())


def test_a_restored_row_is_deleted_again_since_when_it_was(shop: Shop) -> None:
    ticket = shop.models["Ticket"]

    async def work() -> None:
        await shop.clear()
        before = await shop.rows()
        hidden = next(id_ for id_, row in before["Ticket"].items() if row["deleted_at"] is not None)

        async def step(access: Access) -> Any:
            recorder = Recorder(access)
            await recorder.execute(Update(ticket, EVERY_ROW, (by(ticket, "places", 2),), deleted="only"))
            return recorder.effects

        effects = await shop.act(step)
        shown = (await shop.rows())["Ticket"][hidden]
        assert (shown["code"], shown["places"], shown["deleted_at"]) == ("z", 7, None)
        await shop.act(lambda access: take_back(access, effects, shop.models))
        assert await shop.rows() == before

    asyncio.run(work())


def test_many_rows_are_taken_back(shop: Shop) -> None:
    product = shop.models["Product"]
    kinds = tuple(product.fields[n].type for n in ("sku", "stock"))

    async def work() -> None:
        await shop.clear()
        before = await shop.rows()

        async def step(access: Access) -> Any:
            recorder = Recorder(access)
            rows = [(f"n{n}", n) for n in range(2500)]
            await recorder.load(Load(product, ("sku", "stock"), kinds, rows, {"price": Decimal(1), "note": None}))
            await recorder.execute(Update(product, EVERY_ROW, (by(product, "stock", 2),)))
            return recorder.effects

        effects = await shop.act(step)
        assert sum([len(b.rows) for e in effects async for b in e.rows.batches()]) == 2500 + 2504
        await shop.act(lambda access: take_back(access, effects, shop.models))
        assert await shop.rows() == before

    asyncio.run(work())
