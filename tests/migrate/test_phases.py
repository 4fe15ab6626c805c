"""Code of the previous release goes on between the phases of a migration (PostgreSQL)."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from runner.errors import TablesError
from runner.migrate.gate import Gate
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, ROWS, changed
from tests.migrate.test_rollback import take_back

POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
RENAMED = changed("  Customer:\n", "  Client:\n    renamed_from: Customer\n    keep_old_name: true\n", "Customer.id",
                  "Client.id", "name: string", "name: string?")  # fmt: skip


@POSTGRESQL
def test_the_old_name_of_a_model_serves_until_the_last_phase(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run(*ROWS)
    plan = shop.plan(RENAMED)
    assert plan.changes.items() >= {
        "rename_table:client": "LOW", "drop_not_null:client.name": "MEDIUM", "drop_old_name:client.customer": "MEDIUM",
    }.items()  # fmt: skip
    migrator = shop.migrator(RENAMED)
    assert asyncio.run(migrator.apply(Gate(), until="expand")).status == "partial"
    shop.run(
        "INSERT INTO customer (email, name) VALUES ('c@example.org', 'Cid')",
        "UPDATE customer SET name = 'Bert' WHERE id = 2",
    )
    assert shop.rows("SELECT name FROM client ORDER BY id") == [("Ann",), ("Bert",), ("Cid",)]
    assert asyncio.run(migrator.resume()).status == "applied"
    with pytest.raises(sa.exc.DBAPIError):
        shop.rows("SELECT * FROM customer")
    assert shop.plan(RENAMED).steps == ()


@POSTGRESQL
def test_a_rename_is_taken_back_while_its_view_is_there(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run(*ROWS)
    assert asyncio.run(shop.migrator(RENAMED).apply(Gate(), until="expand")).status == "partial"
    assert take_back(shop, RENAMED).status == "applied"
    assert shop.rows("SELECT name FROM customer ORDER BY id") == [("Ann",), ("Bob",)]
    assert shop.plan(BASE).steps == ()


def test_in_one_go_nothing_is_left_of_the_old_name(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run(*ROWS)
    assert shop.apply(RENAMED).status == "applied"
    assert shop.plan(RENAMED).steps == ()
    with pytest.raises(sa.exc.DBAPIError):
        shop.rows("SELECT * FROM customer")


@POSTGRESQL
def test_a_rename_without_a_view_does_not_wait_for_a_later_phase(shop: Shop) -> None:
    shop.apply(BASE)
    with pytest.raises(TablesError) as caught:
        asyncio.run(shop.migrator(RENAMED.replace("    keep_old_name: true\n", "")).apply(Gate(), until="expand"))
    assert caught.value.problems[0].code == "DF613"
    assert "keep_old_name" in caught.value.problems[0].fix
