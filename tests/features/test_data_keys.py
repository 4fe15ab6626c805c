"""Data keys: one a model and tenant, one a subject, each for so many values and no more, and gone when they are
destroyed.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from featured import NOW, Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.audit.trail import ROW
from runner.audit.verify import verify
from runner.dialects.store import Store
from runner.encryption.datakeys import DATA_KEY
from runner.encryption.keys import Use, check_keys, reencrypt, uses
from runner.encryption.vault import Place, Vault, _derived, data_key_of
from runner.errors import StepError, UnreachableError
from schemas.types import Delivered, ValueType

KEYS = {"k1": bytes(range(32)), "k2": bytes(range(1, 33))}
PEOPLE = """\
models:
  Person:
    subject: true
    features: {features}
    fields:
      name: string
      email: {type: string, unique: true}
      born: date
  Letter:
    subject: person_id
    features: {letters}
    fields:
      person_id: {type: integer, nullable: true, references: Person.id}
      number: {type: integer, nullable: true, unique: true}
      body: text
"""
SIMPLE = "{audit_log: true, encryption: {fields: [born], searchable: [email]}}"
FULL = SIMPLE.replace("{audit_log", "{multi_tenant: true, soft_delete: true, versioned: true, audit_log")
FEATURES = {"simple": SIMPLE, "full": FULL}


async def town(engine: AsyncEngine, features: str = SIMPLE) -> Shop:
    """Ann with two letters, Bob with one, and a letter that is nobody's."""
    letters = features.replace("fields: [born], searchable: [email]", "fields: [body]")
    text = PEOPLE.replace("{features}", features).replace("{letters}", letters)
    shop = await Shop(engine, text=text, tenant="acme").prepare()
    people = [{"name": n, "email": f"{n}@x.org", "born": "1990-05-17"} for n in ("Ann", "Bob")]
    await shop.do("Person.bulk_create", data=Delivered(people))
    bodies = [(1, "Dear Ann"), (1, "Yours, Ann"), (2, "Bob's own"), (None, "to all")]
    await shop.do("Letter.bulk_create", data=Delivered([{"person_id": p, "body": b} for p, b in bodies]))
    return shop


async def owners(shop: Shop) -> list[tuple[str, str, bool]]:
    """Whose data keys there are, and which of them can still be used."""
    async with shop.engine.connect() as connection:
        found = await connection.execute(sa.select(DATA_KEY).order_by(DATA_KEY.c.model, DATA_KEY.c.subject))
        return [(row.model, row.subject, row.wrapped is not None) for row in found]


@pytest.mark.parametrize("features", FEATURES)
def test_rows_of_a_subject_are_sealed_with_its_key(engine: AsyncEngine, features: str) -> None:
    async def work() -> None:
        shop = await town(engine, FEATURES[features])
        assert await owners(shop) == [("letter", "", True), ("person", "[1]", True), ("person", "[2]", True)]
        people, letters = await shop.stored("Person"), await shop.stored("Letter")
        own = [data_key_of(row["born"]) for row in people]
        assert [data_key_of(row["email"]) for row in people] == own
        assert [data_key_of(row["body"]) for row in letters[:3]] == [own[0], own[0], own[1]]
        assert data_key_of(letters[3]["body"]) not in own
        await shop.do("Letter.bulk_update", "{filter: {id: {$gt: 1}}, update: {body: anew}}")
        await shop.do("Letter.create", **given(person_id=2, body="more"))
        data = Delivered([{"id": 1, "body": "for Ann"}])
        await shop.do("Letter.bulk_update", "{key: [id]}", data=data)
        letters = await shop.stored("Letter")
        assert [data_key_of(row["body"]) for row in letters[:3]] == [own[0], own[0], own[1]]
        assert data_key_of(letters[4]["body"]) == own[1]
        rows = await shop.rows("Letter.list", "{fields: [body], order_by: [id]}")
        assert [row[0] for row in rows] == ["for Ann", "anew", "anew", "anew", "more"]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("node", "text", "arguments"),
    [
        ("Letter.update", "{id: 1, update: {person_id: 2}}", {}),
        ("Letter.update", "{id: 1, update: {person_id: null, body: x}}", {}),
        ("Letter.bulk_update", "{filter: {id: 1}, update: {person_id: {$inc: 1}}}", {}),
        ("Letter.bulk_update", "{key: [id]}", {"data": Delivered([{"id": 1, "person_id": 2}])}),
        ("Letter.bulk_upsert", "{key: [number]}", {"data": Delivered([{"number": 7, "person_id": 2, "body": "x"}])}),
        ("Letter.upsert", "{key: [number]}", given(number=7, person_id=2, body="x")),
    ],
)
def test_a_row_does_not_move_to_another_subject(
    node: str, text: str, arguments: dict[str, Any], engine: AsyncEngine
) -> None:
    async def work() -> None:
        shop = await town(engine)
        await shop.do("Letter.update", "{id: 1, update: {number: 7}}")
        with pytest.raises(StepError, match=r"DF548 Letter\.person_id: a row belongs to its subject for good"):
            await shop.do(node, text, **arguments)
        await shop.do("Letter.update", "{id: 1, update: {person_id: 1, body: same}}")
        assert (await shop.do("Letter.read", **given(id=1)))["body"] == "same"

    asyncio.run(work())


@pytest.mark.parametrize("features", FEATURES)
def test_what_was_sealed_for_an_erased_subject_opens_nowhere(engine: AsyncEngine, features: str) -> None:
    """Copies of the sealed values, put back into the tables, and all keys of the project do not help."""

    async def work() -> None:
        shop = await town(engine, FEATURES[features])
        before = {name: await shop.stored(name) for name in ("Person", "Letter")}
        async with engine.connect() as connection:
            trail = [dict(row) for row in (await connection.execute(sa.select(ROW))).mappings()]
        await shop.do("Letter.delete", "{hard: true}" if features == "full" else "{}", **given(id=2))
        done = await shop.do("gdpr.erase", "{model: Person}", **given(id=1))
        assert (done["deleted"], done["destroyed_keys"]) == (2, 1)
        assert await owners(shop) == [("letter", "", True), ("person", "[1]", False), ("person", "[2]", True)]
        async with engine.begin() as connection:
            for name, rows in before.items():  # everything is put back as it was, past dfrun
                table = shop.tables[name]
                there = set((await connection.execute(sa.select(table.c.id))).scalars())
                for row in rows:
                    if row["id"] not in there:
                        await connection.execute(sa.insert(table).values(row))
        for vault in (Vault(KEYS, "k1", "k1"), Vault(KEYS, "k2", "k1")):
            shop.scope = replace(shop.scope, vault=vault)
            with pytest.raises(StepError, match=r"DF547 Person.*was sealed for a subject that was erased"):
                await shop.do("Person.read", **given(id=1))
            with pytest.raises(StepError, match=r"DF547 Letter\.body"):
                await shop.do("Letter.read", **given(id=2))
        assert (await shop.do("Person.read", **given(id=2)))["email"] == "Bob@x.org"
        assert "Dear Ann" not in str(trail)

    asyncio.run(work())


def test_what_must_stay_of_a_subject_can_be_read(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await town(engine)
        done = await shop.do("gdpr.erase", "{model: Person, retention_period: 30d}", **given(id=1))
        assert (done["deleted"], done["anonymized"], done["destroyed_keys"]) == (0, 3, 1)
        ann = await shop.do("Person.read", **given(id=1))
        assert (ann["email"], str(ann["born"])) == ("erased-1", "1990-05-17")
        assert done["unreached"] == ["Person.born: it must have a value, and its type has none that tells nothing"]
        rows = await shop.rows("Letter.list", "{fields: [body], order_by: [id]}")
        assert [row[0] for row in rows] == ["erased-1", "erased-2", "Bob's own", "to all"]
        async with engine.connect() as connection:
            assert not (await verify(connection, shop.head)).faults

    asyncio.run(work())


def test_an_erasure_waits_for_who_seals_with_the_key(postgres_url: sa.URL, fresh_postgres: str) -> None:
    from runner.dialects.session import open_engine
    from runner.encryption.datakeys import DataKeys
    from runner.encryption.vault import Owner

    async def work() -> None:
        engine = open_engine(fresh_postgres)
        shop = await town(engine)
        store = Store(engine, shop.tables)
        vault = Vault(KEYS, "k1", "k1")
        ann = Owner("", "person", "[1]")

        async def destroy() -> int:
            async with store.session() as session:
                return await DataKeys(session, vault).destroy("", ["person"], "[1]", NOW)

        async with store.session() as session:
            keys = DataKeys(session, vault)
            await keys.to_seal({ann: 1})
            waiting = asyncio.ensure_future(destroy())
            await asyncio.sleep(0.3)
            assert not waiting.done()
        assert await waiting == 1
        async with store.session() as session:
            anew = DataKeys(session, vault)
            await anew.to_seal({ann: 1})
            assert anew.of(ann).id != keys.of(ann).id
        await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("batch", [7, 25])
def test_a_data_key_seals_so_many_values_and_no_more(engine: AsyncEngine, batch: int) -> None:
    """Over transactions, processes (a vault each) and a rollback."""

    async def work() -> None:
        shop = await town(engine)

        async def load(number: int) -> None:
            rows = [{"person_id": None, "body": f"{number} {n}"} for n in range(batch)]
            await shop.do("Letter.bulk_create", data=Delivered(rows))

        for number in range(12):
            if number % 3 == 0:
                shop.scope = replace(shop.scope, vault=Vault(KEYS, "k1", "k1", values_a_key=64))
            await load(number)
            with pytest.raises(Exception, match="null"):
                await shop.do("Letter.bulk_create", data=Delivered([{"person_id": None, "body": "x"}, {"body": None}]))
        counts = Counter(data_key_of(row["body"]) for row in await shop.stored("Letter"))
        assert sum(counts.values()) == 4 + 12 * batch
        assert max(counts.values()) <= 64
        assert len(counts) >= 12 * batch / 64
        bodies = [row[0] for row in await shop.rows("Letter.list", "{fields: [body], order_by: [id]}")]
        assert bodies[4:] == [f"{number} {n}" for number in range(12) for n in range(batch)]

    asyncio.run(work())


def test_values_are_counted_without_a_write_for_each(engine: AsyncEngine) -> None:
    """Blocks of 2^15 are booked: after 40 loads of 5,000 values, the count is off by a few blocks at most."""

    async def work() -> None:
        shop = await town(engine)
        from runner.dialects.store import open_session
        from runner.encryption.datakeys import DataKeys
        from runner.encryption.vault import Owner

        vault, owner = Vault(KEYS, "k1", "k1"), Owner("", "letter")
        async with open_session(engine, shop.tables) as session:
            for _ in range(400):
                keys = DataKeys(session, vault)
                await keys.to_seal({owner: 5_000})
                await keys.finish()
            used = (await session.fetch(sa.select(DATA_KEY.c.used).where(DATA_KEY.c.model == "letter")))[0][0]
        assert isinstance(used, int)
        assert abs(used - 2_000_000) < 20 * 2**15  # of 61 blocks; 20 is 5 standard deviations

    asyncio.run(work())


def test_new_keys_of_the_project_are_used_at_once_and_old_ones_can_go(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await town(engine, FULL)
        new = Vault(KEYS, "k2", "k1")
        shop.scope = replace(shop.scope, vault=new)
        await shop.do("Letter.create", **given(person_id=1, body="new"))
        before = await shop.stored("Letter")
        store = Store(engine, shop.tables)
        async with engine.connect() as connection:
            found = await uses(connection, shop.models, shop.tables, new)
        assert found[-4:] == [
            Use("Letter", "body", "k1", 4), Use("Letter", "body", "k2", 1), Use("the data keys", "", "k1", 3),
            Use("the data keys", "", "k2", 1),
        ]  # fmt: skip
        only = Vault({"k2": KEYS["k2"]}, "k2", "k2")
        async with engine.connect() as connection:
            with pytest.raises(UnreachableError) as caught:
                await check_keys(connection, only, [shop.models["Letter"]], "acme")
        problem = caught.value.problems[0]
        assert problem.what == "values of Letter are sealed with the key 'k1', which is not given"
        assert (problem.code, problem.fix) == ("DF464", "add k1 to encryption.keys in dfrun.yaml")
        done = [part async for part in reencrypt(store, shop.models, new, "ann")]
        assert done == [("Person", 2), ("Letter", 4), ("the data keys", 3)]
        async with engine.begin() as connection:
            await check_keys(connection, only, [shop.models["Letter"]], "acme")
            found = await uses(connection, shop.models, shop.tables, only)
        assert {use.key_id for use in found} == {"k2"}
        after = await shop.stored("Letter")
        assert [row["version"] for row in after] == [row["version"] for row in before]
        assert not {data_key_of(row["body"]) for row in after[:4]} & {data_key_of(row["body"]) for row in before[:4]}
        await shop.do("gdpr.erase", "{model: Person}", **given(id=1))
        assert [(m, s) for m, s, is_there in await owners(shop) if is_there and s == "[1]"] == []
        await store.close()

    asyncio.run(work())


def test_values_from_before_there_were_data_keys_are_read_and_sealed_anew(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await town(engine)
        vault, text, at = shop.scope.vault, ValueType("text"), Place("Letter.body", ("letter.body",), "", b"[1]")
        assert vault is not None
        cipher = AESGCM(_derived(KEYS["k1"], "value\0letter\0"))
        old = vault.direct("k1") + bytes(12) + cipher.encrypt(bytes(12), b'"Dear Ann"', at.bound("letter.body"))
        assert vault.open(text, old, at, {}) == "Dear Ann"
        for spoilt in (old[:-1] + b"x", old[:9]):
            with pytest.raises(StepError, match="DF543"):
                vault.open(text, spoilt, at, {})
        async with engine.begin() as connection:
            table = shop.tables["Letter"]
            await connection.execute(sa.update(table).where(table.c.id == 1).values(body=old))
        assert (await shop.do("Letter.read", **given(id=1)))["body"] == "Dear Ann"
        async with engine.connect() as connection:
            found = await uses(connection, shop.models, shop.tables, vault)
        assert Use("Letter", "body", "k1", 4) in found and all(use.key_id for use in found)
        store = Store(engine, shop.tables)
        assert [part async for part in reencrypt(store, shop.models, vault, "ann")] == [("Letter", 1)]
        await store.close()
        assert data_key_of((await shop.stored("Letter"))[0]["body"])
        assert (await shop.do("Letter.read", **given(id=1)))["body"] == "Dear Ann"

    asyncio.run(work())
