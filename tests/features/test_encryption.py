"""No plain text on disk, and a value that opens for its own row, field and tenant alone."""

import asyncio
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from featured import Shop, given, read
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.dialects.errors import step_error
from runner.dialects.store import Store
from runner.encryption.keys import Use, check_keys, reencrypt, uses
from runner.encryption.vault import Vault, open_vault
from runner.errors import StepError, UnreachableError
from runner.nodes import resolve_node
from runner.nodes.base import Subject
from schemas.settings import EncryptionKeys, Key
from schemas.types import Delivered, ValueProblem

KEYS = {"k1": bytes(range(32)), "k2": bytes(range(1, 33))}
PEOPLE = """\
models:
  Person:
    features:
      multi_tenant: true
      audit_log: true
      soft_delete: true
      versioned: true
      encryption: {fields: [ssn, born, wage, notes], searchable: [email, city]}
    fields:
      name: string
      email: {type: string, unique: true}
      city: string?
      ssn: {type: string, max_length: 11}
      born: date?
      wage: {type: decimal, precision: 12, scale: 2, nullable: true}
      notes: json?
"""
ANN = {
    "name": "Ann", "email": "ann@example.org", "city": "Oslo", "ssn": "123-45-6789", "born": date(1990, 5, 17),
    "wage": Decimal("4200.50"), "notes": {"k": ["secret", None]},
}  # fmt: skip
BOB = ANN | {"name": "Bob", "email": "bob@example.org", "ssn": "987-65-4321", "notes": None}
SECRETS = ("123-45-6789", "987-65-4321", "ann@example.org", "Oslo", "1990-05-17", "4200.5", "420050", "secret")


async def town(engine: AsyncEngine) -> Shop:
    """Ann and Bob, of two tenants each."""
    shop = await Shop(engine, text=PEOPLE, tenant="acme").prepare()
    for tenant in ("acme", "beta"):
        await shop.of(tenant).do("Person.bulk_create", data=Delivered([ANN, BOB]))
    return shop


def clear(row: dict[str, Any] | None) -> dict[str, Any]:
    """A row in the fields a user wrote."""
    return {name: (row or {})[name] for name in ANN}


async def dump(shop: Shop) -> str:
    """Every cell of every table, as bytes would show it."""
    async with shop.engine.connect() as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
        text = ""
        for name in names:
            for row in await connection.execute(sa.text(f'SELECT * FROM "{name}"')):
                text += " ".join(
                    bytes(c).decode("latin-1") if isinstance(c, (bytes, memoryview)) else str(c) for c in row
                )
    return text


def test_values_come_back_and_nothing_is_in_clear(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await town(engine)
        assert clear(await shop.do("Person.read", **given(email=ANN["email"]))) == ANN
        rows = await shop.rows("Person.list", "{fields: [ssn, born, wage, notes]}")
        assert rows == [(p["ssn"], p["born"], p["wage"], p["notes"]) for p in (ANN, BOB)]
        assert await shop.rows("Person.list", "{filter: {email: {$in: [bob@example.org, x]}}, fields: [name]}") == [
            ("Bob",)
        ]
        assert await shop.do("Person.count", "{filter: {city: Oslo, notes: null}}") == {"count": 1}
        assert await shop.do("Person.count", "{filter: {city: {$ne: Oslo}}}") == {"count": 0}
        for node, text, arguments in [
            ("Person.update", "{update: {ssn: 111-11-1111, city: null}}", given(email=ANN["email"])),
            ("Person.bulk_update", "{filter: {city: Oslo}, update: {born: 2000-01-01}}", {}),
            ("Person.bulk_update", "{key: [email]}", {"data": Delivered([{"email": ANN["email"], "wage": 5}])}),
            ("Person.upsert", "{key: [email]}", given(**BOB | {"ssn": "222-22-2222"})),
            ("Person.bulk_upsert", "{key: [email]}", {"data": Delivered([ANN | {"name": "A"}, ANN | {"email": "c@x.org"}])}),
            ("Person.create", "{}", given(**ANN | {"email": "d@x.org"})),
        ]:  # fmt: skip
            await shop.do(node, text, **arguments)
        seen = await shop.rows("Person.list", "{fields: [name, email, ssn, born, city]}")
        assert seen == [
            ("A", ANN["email"], ANN["ssn"], ANN["born"], "Oslo"),
            ("Bob", BOB["email"], "222-22-2222", BOB["born"], "Oslo"),
            ("Ann", "c@x.org", ANN["ssn"], ANN["born"], "Oslo"),
            ("Ann", "d@x.org", ANN["ssn"], ANN["born"], "Oslo"),
        ]
        text = await dump(shop)
        assert not [secret for secret in (*SECRETS, "222-22-2222", "111-11-1111") if secret in text]
        assert "Ann" in text

    asyncio.run(work())


def test_uniqueness_is_kept_by_the_index(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await town(engine)
        with pytest.raises(Exception) as caught:
            await shop.do("Person.create", **given(**ANN))
        problem = step_error(caught.value, shop.models).problem
        assert (problem.code, problem.what) == ("DF580", "Person.email: a row with this value is there already")
        done = await shop.do(
            "Person.bulk_create", "{rejects: collect}", data=Delivered([ANN, ANN | {"email": "n@x.org"}])
        )
        assert (done["created"], done["reject_count"]) == (1, 1)
        assert not [secret for secret in SECRETS if secret in problem.what]

    asyncio.run(work())


SPOILS = {
    "a bit": "UPDATE person SET ssn = {flip} WHERE id = 1",
    "another row's": "UPDATE person SET ssn = (SELECT ssn FROM person WHERE id = 2) WHERE id = 1",
    "another tenant's": "UPDATE person SET ssn = (SELECT ssn FROM person WHERE id = 3) WHERE id = 1",
    "another field's": "UPDATE person SET ssn = email WHERE id = 1",
    "nothing of ours": "UPDATE person SET ssn = {junk} WHERE id = 1",
}


@pytest.mark.parametrize("spoilt", SPOILS)
def test_a_value_opens_in_its_own_place_alone(engine: AsyncEngine, spoilt: str) -> None:
    async def work() -> None:
        shop = await town(engine)
        is_postgres = engine.dialect.name == "postgresql"
        flip = (
            "set_byte(ssn, 20, get_byte(ssn, 20) # 1)"
            if is_postgres
            else "substr(ssn, 1, 20) || x'00' || substr(ssn, 22)"
        )
        junk = r"'\x00'::bytea" if is_postgres else "x'00'"
        if not is_postgres:
            flip = f"CAST({flip} AS BLOB)"
        async with engine.begin() as connection:
            await connection.execute(sa.text(SPOILS[spoilt].format(flip=flip, junk=junk).replace(":", r"\:")))
        with pytest.raises(StepError) as caught:
            await shop.do("Person.read", **given(id=1))
        assert caught.value.problem.code == "DF543"
        assert caught.value.problem.what == "Person.ssn: a value cannot be opened"
        assert (await shop.do("Person.read", **given(id=2)))["ssn"] == BOB["ssn"]

    asyncio.run(work())


NOTES = """\
models:
  Note:
    features: {multi_tenant: true, encryption: {fields: [body]}}
    fields: {code: {type: string, primary_key: true}, body: string}
"""


def test_a_row_of_the_same_key_opens_no_value_of_another_tenant(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await Shop(engine, text=NOTES, tenant="acme").prepare()
        for tenant in ("acme", "beta"):
            await shop.of(tenant).do("Note.create", **given(code="n", body=f"of {tenant}"))
        async with engine.begin() as connection:
            theirs = "SELECT body FROM note WHERE tenant_id = 'beta'"
            await connection.execute(sa.text(f"UPDATE note SET body = ({theirs}) WHERE tenant_id = 'acme'"))
        assert (await shop.of("beta").do("Note.read", **given(code="n")))["body"] == "of beta"
        with pytest.raises(StepError, match="DF543"):
            await shop.do("Note.read", **given(code="n"))

    asyncio.run(work())


@pytest.mark.parametrize(
    ("node", "arguments", "path"),
    [
        ("Person.list", "{filter: {ssn: 123-45-6789}}", ("filter", "ssn")),
        ("Person.list", "{filter: {$or: [{name: x}, {email: {$like: 'a%'}}]}}", ("filter", "$or", 1, "email", "$like")),
        ("Person.count", "{filter: {born: {$gt: 2000-01-01}}}", ("filter", "born", "$gt")),
        ("Person.bulk_delete", "{filter: {$not: {notes.k: 1}}}", ("filter", "$not", "notes.k")),
        ("Person.list", "{order_by: [name, -email]}", ("order_by",)),
        ("Person.aggregate", "{group_by: [city], aggregate: {n: {$count: '*'}}}", ("group_by",)),
        ("Person.aggregate", "{aggregate: {n: {$max: wage}}}", ("aggregate",)),
        ("Person.update", "{id: 1, update: {wage: {$inc: 1}}}", ("update", "wage")),
        ("Person.update", "{id: 1, update: {name: {$field: email}}}", ("update", "name")),
    ],
)
def test_what_sealed_bytes_cannot_answer_is_refused_before_the_run(
    node: str, arguments: str, path: tuple[object, ...], engine: AsyncEngine
) -> None:
    shop = Shop(engine, text=PEOPLE, tenant="acme")
    kind, model = resolve_node(node, shop.models)
    with pytest.raises(ValueProblem) as caught:
        kind.check(read(arguments), Subject(model, shop.models, Path()))
    assert "encrypted" in caught.value.what
    assert caught.value.path[: len(path)] == path


def test_a_key_that_moves_on_leaves_nothing_behind(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await town(engine)
        new = Vault(KEYS, "k2", "k1")
        shop.scope = replace(shop.scope, vault=new)
        await shop.do("Person.create", **given(**ANN | {"email": "new@x.org"}))
        assert clear(await shop.do("Person.read", **given(email=ANN["email"]))) == ANN
        store = Store(engine, shop.tables)
        async with engine.connect() as connection:
            before = await uses(connection, shop.models, shop.tables, new)
        assert Use("Person", "ssn", "k1", 4) in before
        assert Use("Person", "ssn", "k2", 1) in before
        parts = reencrypt(store, shop.models, new, "ann")
        assert await anext(parts) == ("Person", 2)  # stopped after a part, as if it was killed
        await parts.aclose()
        left = [("Person", 2), ("the data keys", 2)]
        assert [part async for part in reencrypt(store, shop.models, new, "ann")] == left
        assert [part async for part in reencrypt(store, shop.models, new, "ann")] == []
        await store.close()
        async with engine.connect() as connection:
            after = await uses(connection, shop.models, shop.tables, Vault({"k2": KEYS["k2"]}, "k2", "k2"))
        assert {use.key_id for use in after} == {"k2"}
        assert clear(await shop.do("Person.read", **given(email=ANN["email"]))) == ANN

    asyncio.run(work())


def test_a_missing_or_wrong_key_is_told_without_a_value(engine: AsyncEngine) -> None:
    async def work() -> None:
        shop = await town(engine)
        async with engine.begin() as connection:
            await check_keys(connection, Vault({"k1": KEYS["k1"]}, "k1", "k1"))
            await check_keys(connection, Vault(KEYS, "k2", "k1"), shop.models.values())
            with pytest.raises(UnreachableError, match="DF462 the key 'k1' is not the one"):
                await check_keys(connection, Vault({"k1": KEYS["k2"]}, "k1", "k1"))
            with pytest.raises(UnreachableError, match=r"DF462 the index .* was not made with the key 'k2'"):
                await check_keys(connection, Vault(KEYS, "k2", "k2"), shop.models.values())
        shop.scope = replace(shop.scope, vault=Vault({"k2": KEYS["k2"]}, "k2", "k2"))
        with pytest.raises(StepError, match=r"DF544 Person.*'k1', which is not given"):
            await shop.do("Person.read", **given(id=1))

    asyncio.run(work())


def test_keys_come_from_the_environment_a_file_or_a_command(tmp_path: Path) -> None:
    text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    (tmp_path / "k.key").write_text(text + "\n", encoding="ascii")
    keys = {"e": Key(env="K"), "f": Key(file="k.key"), "c": Key(command=("cat", "k.key"))}
    vault = open_vault(EncryptionKeys(current="e", keys=keys), {"K": text}, tmp_path)
    assert len({vault.check_value(key_id) for key_id in vault.ids}) == 1
    for wrong in (Key(env="NONE"), Key(file="no.key"), Key(command=("false",)), Key(env="SHORT")):
        with pytest.raises(UnreachableError, match="DF461") as caught:
            open_vault(EncryptionKeys(current="k", keys={"k": wrong}), {"SHORT": "c2VjcmV0"}, tmp_path)
        assert "c2VjcmV0" not in str(caught.value)
