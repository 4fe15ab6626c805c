"""Names that are too long for PostgreSQL are cut and told apart, on both databases: tables, rules, indexes, the trash."""

from __future__ import annotations

import asyncio

import pytest

from runner.audit.triggers import track
from runner.migrate.gate import Gate
from runner.sql.tables import build_tables
from tests.migrate.conftest import Shop, shapes

COLUMN = "of_the_second_delivery_address_that_a_customer_gave_us_"
MODEL = "WarehouseInventoryAdjustmentReasonCodeOfTheYearOfTheLedger"
LONG = f"""\
models:
  {MODEL}A: &model
    features: {{timestamps: false}}
    fields: &fields
      {COLUMN}one: {{type: string, max_length: 60, unique: true, nullable: true}}
      {COLUMN}two: {{type: enum, values: [a, b], default: a, check: {{$ne: b}}, index: true}}
      {COLUMN}six: {{type: integer, nullable: true, references: {MODEL}B.id}}
    indexes: &indexes
      - {{fields: [{COLUMN}one, {COLUMN}two]}}
      - {{fields: [{COLUMN}one, {COLUMN}six]}}
    postgresql:
      partial_indexes: [{{fields: [{COLUMN}one], condition: {{{COLUMN}two: a}}}}]
  {MODEL}B:
    features: {{timestamps: false}}
    fields: *fields
    indexes: *indexes
"""
OTHER = (
    LONG.replace("[a, b]", "[a, b, d]")
    .replace("max_length: 60", "max_length: 40")
    .replace(f"{{fields: [{COLUMN}one, {COLUMN}six]}}", f"{{fields: [{COLUMN}one, {COLUMN}six], unique: true}}")
    .replace("integer, nullable: true, ref", "integer, ref")
)


def names(shop: Shop) -> list[str]:
    """Everything that has a name of its own in the database or in its table."""
    if shop.database == "sqlite":
        return [row[0] for row in shop.rows("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")]
    return [
        row[0]
        for row in shop.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace UNION ALL "
            "SELECT conname FROM pg_constraint WHERE connamespace = current_schema()::regnamespace AND contype IN ('c', 'f')"
        )
    ]


def test_tables_rules_and_indexes_with_long_names_come_change_and_go(shop: Shop) -> None:
    shop.apply(LONG)
    assert (shop.plan(LONG).steps, shop.plan(LONG).blocked) == ((), ())
    found = names(shop)
    assert len(found) == len(set(found))
    assert max(len(name.encode()) for name in found) <= 63
    tables = sorted(name for name in found if name.startswith("warehouse") and not name.endswith(("_pkey", "_seq")))
    assert len(tables) == 2
    assert shop.apply(OTHER).status == "applied"
    assert (shop.plan(OTHER).steps, shop.plan(OTHER).drifted) == ((), ())

    async def back() -> str:
        plan = await shop.migrator(OTHER).plan_rollback()
        return (await shop.migrator(OTHER).rollback(Gate("HIGH", frozenset(plan.plan.changes)))).status

    assert asyncio.run(back()) == "applied"
    assert (shop.plan(LONG).steps, shop.plan(LONG).blocked) == ((), ())


def test_two_fields_that_begin_alike_lie_side_by_side_in_the_trash(shop: Shop) -> None:
    shop.apply(LONG)
    table = next(
        name for name in names(shop) if name.startswith("warehouse") and "_pkey" not in name and "_seq" not in name
    )
    shop.run(f"INSERT INTO {table} ({COLUMN}one) VALUES ('x')")
    without = (
        "\n".join(
            "      more: string?" if f"      {COLUMN}six" in line else line
            for line in LONG.splitlines()
            if f"{COLUMN}two:" not in line and "- {fields" not in line and "partial" not in line
        )
        .replace("    indexes: &indexes\n", "")
        .replace("    indexes: *indexes", "")
        .replace("    postgresql:\n", "")
    )
    shop.apply(without + "\n")
    assert shop.plan(without + "\n").steps == ()

    async def back() -> str:
        plan = await shop.migrator(without + "\n").plan_rollback()
        return (await shop.migrator(without + "\n").rollback(Gate("HIGH", frozenset(plan.plan.changes)))).status

    assert asyncio.run(back()) == "applied"
    assert (shop.plan(LONG).steps, shop.plan(LONG).blocked) == ((), ())
    assert shop.rows(f"SELECT {COLUMN}one, {COLUMN}two FROM {table}") == [("x", "a")]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_two_tables_that_begin_alike_are_tracked_by_a_function_each(shop: Shop) -> None:
    text = "models:\n" + "".join(
        f"  {MODEL}{end}: {{features: {{timestamps: false, audit_log: true}}, fields: {{n: integer}}}}\n"
        for end in "AB"
    )
    models = shapes(text)
    shop.apply(text)

    async def work() -> None:
        async with shop.engine.begin() as connection:
            await track(connection, models, build_tables(models, "postgresql"), list(models))

    asyncio.run(work())
    found = shop.rows(
        "SELECT count(DISTINCT tgfoid) FROM pg_trigger WHERE tgname LIKE 'dfrun_audit_insert%' AND "
        "tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace)"
    )
    assert found == [(2,)]
