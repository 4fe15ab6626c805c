"""What is taken back: rows, columns and tables from the trash, values before a change, and losses named first."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from runner.errors import TablesError
from runner.migrate.apply import Limits, MigrationError
from runner.migrate.connection import connect
from runner.migrate.gate import Gate
from runner.migrate.migrator import Outcome
from runner.migrate.rollback import Rollback
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, CHANGES, ROWS, changed


def take_back(shop: Shop, text: str, number: int | None = None) -> Outcome:
    async def work() -> Outcome:
        migrator = shop.migrator(text)
        found = await migrator.plan_rollback(number)
        return await migrator.rollback(Gate("HIGH", frozenset(found.plan.changes)), number)

    return asyncio.run(work())


def thought(shop: Shop, text: str, number: int | None = None) -> Rollback:
    return asyncio.run(shop.migrator(text).plan_rollback(number))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "nothing"])
def test_a_change_is_taken_back_with_its_rows(shop: Shop, name: str) -> None:
    after = CHANGES[name][0]
    shop.apply(BASE)
    shop.run(*ROWS)
    before = [shop.rows("SELECT * FROM customer ORDER BY id"), shop.rows('SELECT * FROM "order" ORDER BY id')]
    shop.apply(after)
    assert take_back(shop, after).status == "applied"
    names = {"customer": "id, email, name, tier", "order": "id, customer_id, total, note"}
    found = [shop.rows(f'SELECT {columns} FROM "{table}" ORDER BY id') for table, columns in names.items()]
    assert found == before
    again = shop.plan(BASE)
    assert (again.steps, again.blocked, again.drifted) == ((), (), ())
    assert shop.apply(after).status == "applied"  # and forth again


def test_values_before_a_change_of_type_come_back_where_nobody_wrote_since(shop: Shop) -> None:
    before = changed("note: string?", "note: string?\n      code: string?")
    after = before.replace("code: string?", "code: integer?")
    shop.apply(before)
    shop.run(*ROWS, "UPDATE \"order\" SET code = CASE id WHEN 1 THEN '007' ELSE '08' END")
    shop.apply(after)
    assert shop.rows('SELECT code FROM "order" ORDER BY id') == [(7,), (8,)]
    shop.run('UPDATE "order" SET code = 9 WHERE id = 2')
    assert thought(shop, after).fully_reversible
    take_back(shop, after)
    assert shop.rows('SELECT code FROM "order" ORDER BY id') == [("007",), ("9",)]


def test_losses_are_named_and_counted_before_anything_happens(shop: Shop) -> None:
    after = changed("note: string?", "note: string?\n      paid: string?")
    shop.apply(BASE)
    shop.run(*ROWS)
    shop.apply(after)
    assert thought(shop, after).fully_reversible
    shop.run("UPDATE \"order\" SET paid = 'yes'")
    found = thought(shop, after)
    assert not found.fully_reversible
    assert found.data_loss_warning == "2 rows of order have a value in paid, which goes to the trash"
    with pytest.raises(TablesError) as caught:
        asyncio.run(shop.migrator(after).rollback(Gate("HIGH")))
    assert [p.code for p in caught.value.problems] == ["DF614"]


def test_a_dropped_field_that_was_required_comes_back_only_if_every_row_has_it(shop: Shop) -> None:
    after = changed("      name: string\n", "")
    shop.apply(BASE)
    shop.run(ROWS[0])
    shop.apply(after)
    shop.run("INSERT INTO customer (email) VALUES ('new@example.org')")
    found = thought(shop, after)
    assert [p.what for p in found.plan.blocked] == ["1 row of customer has no name"]
    shop.run("DELETE FROM customer WHERE email = 'new@example.org'")
    take_back(shop, after)
    assert shop.rows("SELECT name FROM customer ORDER BY id") == [("Ann",), ("Bob",)]


def test_an_earlier_migration_is_taken_back_with_all_after_it(shop: Shop) -> None:
    second = changed("note: string?", "note: string?\n      paid: boolean?")
    third = second.replace("name: string", "full_name: {type: string, renamed_from: name}")
    shop.apply(BASE)
    shop.run(ROWS[0])
    shop.apply(second)
    shop.apply(third)
    assert take_back(shop, third, 2 + shop_offset(shop)).status == "applied"
    assert shop.plan(BASE).steps == ()
    assert shop.rows("SELECT name FROM customer ORDER BY id") == [("Ann",), ("Bob",)]


def shop_offset(shop: Shop) -> int:
    """The ledger serves all schemas of a database: the first number of this one, less one."""
    migrations, _ = asyncio.run(shop.migrator(BASE).history())
    return migrations[0].id - 1


def test_the_trash_is_emptied_when_its_time_has_come(shop: Shop) -> None:
    after = changed("      note: string?\n", "")
    shop.apply(BASE)
    shop.run(*ROWS)
    shop.apply(after)
    migrator = shop.migrator(after)
    assert asyncio.run(migrator.kept(timedelta(days=1))) == []
    (kept,) = asyncio.run(migrator.purge(timedelta(0)))
    assert (kept.backup.kind, kept.backup.table, kept.backup.name) == ("trash_column", "order", "note")
    assert asyncio.run(migrator.kept(timedelta(0))) == []
    assert shop.plan(after).steps == ()
    assert len(shop.rows('SELECT * FROM "order"')[0]) == 3
    assert Decimal(shop.rows('SELECT sum(total) FROM "order"')[0][0]) == 2499


def test_nothing_is_taken_back_where_nothing_was_applied(shop: Shop) -> None:
    with pytest.raises(TablesError) as caught:
        thought(shop, BASE)
    assert str(caught.value) == "DF619 there is no migration to take back"


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_rollback_that_fails_has_taken_nothing_back(shop: Shop) -> None:
    after = changed("note: string?", "note: string?\n      paid: boolean?")
    shop.apply(BASE)
    shop.apply(after)

    async def work() -> None:
        async with connect(shop.engine) as reader:
            await reader.execute("BEGIN")
            await reader.execute('SELECT * FROM "order"')
            migrator = shop.migrator(after, limits=Limits((20, 40), 2))
            found = await migrator.plan_rollback()
            with pytest.raises(MigrationError):
                await migrator.rollback(Gate("HIGH", frozenset(found.plan.changes)))
            await reader.execute("ROLLBACK")

    asyncio.run(work())
    again = shop.plan(after)
    assert (again.steps, again.drifted) == ((), ())
    assert take_back(shop, after).status == "applied"
    migrations, _ = asyncio.run(shop.migrator(BASE).history())
    assert [(m.kind, m.status) for m in migrations] == [
        ("apply", "applied"), ("apply", "rolled_back"), ("rollback", "failed"), ("rollback", "applied"),
    ]  # fmt: skip
    assert shop.plan(BASE).steps == ()
