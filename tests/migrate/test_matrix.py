"""Every type to every type with values in the rows, there and back; and models at random: no difference that is none,
and none left after an apply or a rollback."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from runner.migrate.gate import Gate
from runner.sql.tables import build_tables
from tests.migrate.conftest import Shop, shapes

TYPES = {
    "string": "{type: string, max_length: 60, nullable: true}", "text": "text?", "integer": "integer?",
    "float": "float?", "decimal": "{type: decimal, precision: 12, scale: 2, nullable: true}", "boolean": "boolean?",
    "date": "date?", "time": "time?", "datetime": "datetime?", "uuid": "uuid?", "json": "json?", "bytes": "bytes?",
    "enum": "{type: enum, values: [a, b], nullable: true}", "list": "{type: list, items: integer, nullable: true}",
}  # fmt: skip
DAY, MOMENT, AT, KEY = date(2024, 2, 29), datetime(2024, 2, 29, tzinfo=UTC), time(12, 30), UUID(int=7)
ONES = {"integer": 1, "float": 1.0, "decimal": Decimal("1.00"), "boolean": True}
TEXTS: dict[str, tuple[str, Any]] = {
    "string": ("x", "x"), "text": ("x", "x"), "integer": ("7", 7), "float": ("1.5", 1.5),
    "decimal": ("7.25", Decimal("7.25")), "boolean": ("true", True), "date": ("2024-02-29", DAY),
    "time": ("12:30:00", AT), "datetime": ("2024-02-29T00:00:00+00:00", MOMENT), "uuid": (str(KEY), KEY),
    "json": ('{"a": 1}', {"a": 1}), "bytes": ("00ff", b"\x00\xff"), "enum": ("a", "a"), "list": ("[1, 2]", [1, 2]),
}  # fmt: skip
OWN = {
    "date": DAY,
    "time": AT,
    "datetime": MOMENT,
    "uuid": KEY,
    "json": {"a": 1},
    "bytes": b"\x00\xff",
    "enum": "a",
    "list": [1, 2],
}


def sample(source: str, target: str) -> tuple[Any, Any]:
    """A value of one type and what becomes of it in the other; None where the pair has no meaning."""
    if source in ("string", "text"):
        return TEXTS[target]
    if source == target:
        return (ONES | OWN)[source], (ONES | OWN)[source]
    if source in ONES and target in ONES:
        return ONES[source], ONES[target]
    texts = ("string", "text")
    if source == "json" and target in ("integer", "float", "decimal", "boolean"):
        return (
            (True, True)
            if target == "boolean"
            else (7, {"integer": 7, "float": 7.0, "decimal": Decimal("7.00")}[target])
        )
    if source in ("enum", "uuid", "date") and target in texts:
        return OWN[source], str(OWN[source])
    if source == "enum" and target == "json":
        return None, None
    if source == "integer" and target in texts:
        return 1, "1"
    if source == "bytes" and target in texts:
        return b"\x00\xff", "00ff"
    pairs = {("date", "datetime"): (DAY, MOMENT), ("datetime", "date"): (MOMENT, DAY), ("list", "json"): ([1, 2], [1, 2]),
             ("json", "list"): ([1, 2], [1, 2]), ("integer", "json"): (1, 1), ("boolean", "json"): (True, True),
             ("uuid", "json"): (KEY, str(KEY))}  # fmt: skip
    return pairs.get((source, target), (None, None))


def model(kinds: dict[str, str]) -> str:
    fields = "\n".join(f"      to_{name}: {TYPES[kind]}" for name, kind in kinds.items())
    return f"models:\n  Thing:\n    features: {{timestamps: false}}\n    fields:\n{fields}\n"


def table(shop: Shop, text: str) -> sa.Table:
    return build_tables(shapes(text), shop.database)["Thing"]


def stored(shop: Shop, text: str) -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        async with shop.engine.connect() as connection:
            return dict((await connection.execute(table(shop, text).select())).mappings().one())

    return asyncio.run(work())


@pytest.mark.parametrize("source", TYPES)
def test_a_value_of_every_type_becomes_one_of_every_other_and_comes_back(shop: Shop, source: str) -> None:
    before, after = model(dict.fromkeys(TYPES, source)), model({name: name for name in TYPES})
    pairs = {f"to_{target}": sample(source, target) for target in TYPES}
    shop.apply(before)

    async def fill() -> None:
        async with shop.engine.begin() as connection:
            await connection.execute(table(shop, before).insert().values({n: given for n, (given, _) in pairs.items()}))

    asyncio.run(fill())
    plan = shop.plan(after)
    assert plan.blocked == ()
    assert shop.apply(after).status == "applied"
    assert shop.plan(after).steps == ()
    assert stored(shop, after) == {"id": 1} | {name: wanted for name, (_, wanted) in pairs.items()}

    async def back() -> str:
        found = await shop.migrator(after).plan_rollback()
        return (await shop.migrator(after).rollback(Gate("HIGH", frozenset(found.plan.changes)))).status

    assert asyncio.run(back()) == "applied"
    assert shop.plan(before).steps == ()
    assert stored(shop, before) == {"id": 1} | {name: given for name, (given, _) in pairs.items()}


class Author:
    """Writes valid files of models at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def models(self) -> str:
        names = self.random.sample(["Alpha", "Beta", "Order", "LongerName"], self.random.randint(2, 4))
        return "models:\n" + "".join(self.model(name, names[:number]) for number, name in enumerate(names))

    def model(self, name: str, others: list[str]) -> str:
        pick, chance = self.random.choice, self.random.random
        fields, unique = [], False
        for field in self.random.sample(
            ["one", "two", "user", "Mixed", "group", "last_seen"], self.random.randint(2, 5)
        ):
            fields.append(f"      {field}: {self.field(pick(list(TYPES)))}")
        if others and chance() < 0.7:
            action = pick(["restrict", "cascade", "set_null"])
            fields.append(
                f"      parent_id: {{type: integer, nullable: true, references: {pick(others)}.id, on_delete: {action}}}"
            )
        columns = [line.strip().partition(":")[0] for line in fields]
        indexes = []
        for _ in range(self.random.randint(0, 2)):
            chosen = self.random.sample(columns, min(len(columns), self.random.randint(1, 2)))
            kinds = [next(line for line in fields if line.strip().startswith(f"{c}:")) for c in chosen]
            if any("json" in kind or "list" in kind for kind in kinds):
                continue
            # one field that is unique has an index of that name already
            unique = chance() < 0.3 and len(chosen) > 1
            listed = ", ".join(("-" if chance() < 0.3 else "") + c for c in chosen)
            line = f"      - {{fields: [{listed}]{', unique: true' if unique else ''}}}"
            if not any(
                line.split("]")[0].replace("-", "") == other.split("]")[0].replace("-", "") for other in indexes
            ):
                indexes.append(line)
        features = "{timestamps: false}" if chance() < 0.4 else f"{{soft_delete: {str(chance() < 0.5).lower()}}}"
        text = f"  {name}:\n    features: {features}\n    fields:\n" + "\n".join(fields) + "\n"
        return text + ("    indexes:\n" + "\n".join(indexes) + "\n" if indexes else "")

    def field(self, kind: str) -> str:
        chance = self.random.random
        defaults = {"string": "it's", "text": "'{{\"'", "integer": "-3", "float": "1.5", "decimal": "7.25", "boolean": "true",
                    "date": "2024-02-29", "enum": "a", "json": "{a: [1, null, {b: 'x'}]}", "uuid": str(KEY),
                    "datetime": "2024-02-29T12:00:00Z", "list": "[1, 2]", "time": "12:30:00"}  # fmt: skip
        checks = {"integer": "{$gte: -5, $ne: 4}", "string": "{$in: [\"it's\", b]}", "decimal": "{$lt: 100.5}",
                  "date": "{$gt: 2001-01-01}", "float": "{$gte: 0}", "text": "{$like: '%'}"}  # fmt: skip
        text = TYPES[kind] if TYPES[kind].startswith("{") else f"{{type: {TYPES[kind]}}}"
        text = text.replace("?}", ", nullable: true}")
        if kind in defaults and chance() < 0.5:
            text = text.replace("}", f", default: {defaults[kind]}}}", 1) if kind not in ("json", "text") else text
        if kind in checks and chance() < 0.4:
            text = text[:-1] + f", check: {checks[kind]}}}"
        if kind not in ("json", "list", "float", "bytes") and chance() < 0.2:
            text = text[:-1] + ", unique: true}"
        return text


@pytest.mark.parametrize("seed", range(10))
def test_models_at_random_are_reached_and_left_again_without_a_difference(shop: Shop, seed: int) -> None:
    author = Author(seed)
    before, after = author.models(), author.models()
    shop.apply(before)
    again = shop.plan(before)
    assert (again.changes, again.blocked, again.drifted) == ({}, (), ())
    plan = shop.plan(after)
    allow = frozenset(plan.changes)
    assert [p.what for p in shop.plan(after, allow).blocked] == []

    async def work() -> list[str]:
        migrator = shop.migrator(after)
        done = [(await migrator.apply(Gate("HIGH", allow))).status] if plan.steps else []
        assert not (await migrator.plan()).changes
        if done:
            found = await migrator.plan_rollback()
            done.append((await migrator.rollback(Gate("HIGH", frozenset(found.plan.changes)))).status)
        return done

    assert set(asyncio.run(work())) <= {"applied"}
    left = shop.plan(before)
    assert (left.changes, left.blocked) == ({}, ())
