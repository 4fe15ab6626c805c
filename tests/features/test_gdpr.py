"""What is kept about a subject can be told, and forgotten: in its rows, in those that lead to it, and in the trail."""

import asyncio
import csv
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from featured import NOW, Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine

from runner.audit.trail import ROW
from runner.audit.verify import verify
from runner.errors import StepError

PEOPLE = """\
models:
  Person:
    features: {features}
    fields:
      name: {type: string, pii: true}
      email: {type: string, unique: true, pii: true}
      phone: {type: string, nullable: true, pii: true}
      born: {type: date, pii: true}
  Letter:
    features: {features}
    fields:
      person_id: {type: integer, references: Person.id}
      body: {type: text, pii: true}
  Stamp:
    features: {features}
    fields:
      letter_id: {type: integer, references: Letter.id}
      price: integer
"""
FEATURES = ["{audit_log: true}", "{audit_log: true, soft_delete: true, versioned: true, multi_tenant: true}"]
FEATURES.append("{audit_log: true, multi_tenant: true, encryption: {fields: [born], searchable: [email]}}")


async def town(engine: AsyncEngine, features: str, folder: Path) -> Shop:
    """Ann with two letters and three stamps, one letter deleted where that is possible, and Bob with one of each."""
    text = PEOPLE.replace("{features}", features, 1)
    text = text.replace("{features}", features.partition(", encryption")[0] + ("}" if "encryption" in features else ""))
    shop = await Shop(engine, text=text, tenant="acme", project=folder).prepare()
    for name in ("Ann", "Bob"):
        values = given(name=name, email=f"{name}@x.org", phone="555", born="1990-05-17")
        await shop.do("Person.create", **values)
    for person, body in [(1, "Dear secret"), (1, "Yours, Ann"), (2, "Bob's own")]:
        await shop.do("Letter.create", **given(person_id=person, body=body))
    for letter in (1, 1, 2, 3):
        await shop.do("Stamp.create", **given(letter_id=letter, price=letter))
    await shop.do("Person.update", "{update: {name: Annie}}", **given(id=1))
    if "soft_delete" in features:
        await shop.do("Stamp.bulk_delete", "{filter: {letter_id: 2}}")
        await shop.do("Letter.delete", **given(id=2))
    return shop


async def trail(shop: Shop) -> tuple[list[str], str]:
    """What verifying finds, and everything that the trail says."""
    async with shop.engine.connect() as connection:
        found = await verify(connection, shop.head)
        cells = [str(cell) for row in await connection.execute(sa.select(ROW.c.before, ROW.c.after)) for cell in row]
    return list(found.faults), " ".join(cells)


@pytest.mark.parametrize("features", FEATURES)
def test_everything_about_a_subject_is_told(engine: AsyncEngine, features: str, tmp_path: Path) -> None:
    async def work() -> None:
        shop = await town(engine, features, tmp_path)
        done = await shop.do(
            "gdpr.export", "{model: Person, path: ann.json, anonymize_fields: [Letter.body]}", **given(id=1)
        )
        assert (done["rows"], done["models"]) == (6, {"Person": 1, "Letter": 2, "Stamp": 3})
        told = json.loads((tmp_path / "ann.json").read_text())
        assert (told["Person"][0]["name"], told["Person"][0]["born"]) == ("Annie", "1990-05-17")
        assert [letter["body"] for letter in told["Letter"]] == ["***", "***"]
        done = await shop.do(
            "gdpr.export", "{model: Person, path: ann, format: csv, include_deleted: false}", **given(id=1)
        )
        assert done["rows"] == (4 if "soft_delete" in features else 6)
        rows = list(csv.DictReader((tmp_path / "ann" / "Letter.csv").read_text().splitlines()))
        assert rows[0]["body"] == "Dear secret"

    asyncio.run(work())


@pytest.mark.parametrize("features", FEATURES)
def test_a_subject_is_forgotten_and_the_chain_holds(engine: AsyncEngine, features: str, tmp_path: Path) -> None:
    async def work() -> None:
        shop = await town(engine, features, tmp_path)
        done = await shop.do("gdpr.erase", "{model: Person}", **given(id=1))
        assert (done["deleted"], done["anonymized"], done["unreached"]) == (6, 0, [])
        assert [row["id"] for row in await shop.stored("Person")] == [2]
        assert [row["id"] for row in await shop.stored("Letter")] == [3]
        assert [row["id"] for row in await shop.stored("Stamp")] == [4]
        faults, said = await trail(shop)
        assert not faults
        assert not [word for word in ("Ann", "secret") if word in said]
        assert "Bob's own" in said
        with pytest.raises(StepError) as caught:
            await shop.do("gdpr.erase", "{model: Person}", **given(id=1))
        assert caught.value.error_class == "not_found"
        assert not (await trail(shop))[0]

    asyncio.run(work())


@pytest.mark.parametrize(("text", "deleted"), [("cascade: false", 0), ("retention_period: 30d", 0)])
def test_what_must_stay_is_anonymised(engine: AsyncEngine, text: str, deleted: int, tmp_path: Path) -> None:
    async def work() -> None:
        shop = await town(engine, FEATURES[1], tmp_path)
        done = await shop.do("gdpr.erase", f"{{model: Person, {text}}}", **given(id=1))
        assert (done["deleted"], done["anonymized"]) == (deleted, 3)
        assert done["unreached"] == ["Person.born: it must have a value, and its type has none that tells nothing"]
        ann = (await shop.stored("Person"))[0]
        assert (ann["name"], ann["email"], ann["phone"]) == ("erased-1", "erased-1", None)
        assert [row["body"] for row in await shop.stored("Letter")] == ["erased-1", "erased-2", "Bob's own"]
        faults, said = await trail(shop)
        assert not faults
        assert not [word for word in ("Ann", "secret") if word in said]

    asyncio.run(work())


def test_what_is_old_enough_goes(engine: AsyncEngine, tmp_path: Path) -> None:
    async def work() -> None:
        shop = await town(engine, FEATURES[0], tmp_path)
        shop.scope = replace(shop.scope, now=NOW + timedelta(days=1))
        await shop.do("Letter.create", **given(person_id=1, body="a new secret"))
        done = await shop.do("gdpr.erase", "{model: Person, retention_period: 1h}", **given(id=1))
        assert (done["deleted"], done["anonymized"]) == (5, 2)  # the new letter stays, and with it whom it is of
        assert len(await shop.stored("Letter")) == 2
        assert not (await trail(shop))[0]

    asyncio.run(work())


def test_values_that_vanish_from_the_trail_without_an_erasure_are_found(engine: AsyncEngine, tmp_path: Path) -> None:
    async def work() -> None:
        shop = await town(engine, FEATURES[0], tmp_path)
        from runner.audit.trail import FIELDS
        from runner.sql.digests import digest_of_row

        async with engine.begin() as connection:
            row: Any = (
                await connection.execute(sa.select(*(ROW.c[n] for n in FIELDS)).where(ROW.c.position == 1))
            ).one()
            blank = {"digest": digest_of_row(row).hex(), "before": None, "after": None}
            await connection.execute(sa.update(ROW).where(ROW.c.position == 1).values(blank))
        assert (await trail(shop))[0] == ["1 rows were emptied by no erasure"]

    asyncio.run(work())


def test_the_same_key_of_another_tenant_keeps_its_trail(engine: AsyncEngine, tmp_path: Path) -> None:
    text = "models:\n  Note: {features: {multi_tenant: true, audit_log: true}, fields: {code: {type: string, primary_key: true}, body: text}}"

    async def work() -> None:
        shop = await Shop(engine, text=text, tenant="acme").prepare()
        for tenant in ("acme", "beta"):
            await shop.of(tenant).do("Note.create", **given(code="x", body=f"of {tenant}"))
        await shop.do("gdpr.erase", "{model: Note}", **given(id="x"))
        faults, said = await trail(shop)
        assert not faults
        assert "of acme" not in said
        assert "of beta" in said

    asyncio.run(work())
