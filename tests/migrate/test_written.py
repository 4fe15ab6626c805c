"""Hand-written steps: before the difference, proved, once."""

from __future__ import annotations

import asyncio

import pytest

from runner.declarations import load_migration
from runner.errors import TablesError
from runner.migrate.gate import Gate
from runner.migrate.lint import lint
from runner.migrate.migrator import Outcome
from runner.migrate.plan import MigrationPlan
from runner.migrate.written import Written, written_of
from runner.source import parse_document
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, ROWS, changed

SPLIT = """\
migration: split_name
steps:
  - add_column: {model: Customer, field: first_name, type: string?}
  - backfill: {model: Customer, set: {first_name: "upper(name)"}, where: first_name IS NULL, batch_size: 1}
  - drop_column: {model: Customer, field: name}
"""
AFTER = changed("name: string", "first_name: string")


def written(text: str) -> Written:
    document = parse_document(text.encode(), "migrations/split.yaml")
    return written_of(load_migration(document), text)


def plan(shop: Shop, models: str, *texts: str) -> MigrationPlan:
    return asyncio.run(shop.migrator(models, written=[written(t) for t in texts]).plan())


def apply(shop: Shop, models: str, *texts: str) -> Outcome:
    return shop.apply(models, written=[written(t) for t in texts])


def test_add_fill_and_drop_move_data_from_one_field_to_another(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run(*ROWS)
    assert apply(shop, AFTER, SPLIT).status == "applied"
    assert shop.rows("SELECT first_name FROM customer ORDER BY id") == [("ANN",), ("BOB",)]
    assert plan(shop, AFTER, SPLIT).steps == ()


def test_a_file_is_carried_out_once_and_must_not_change_afterwards(shop: Shop) -> None:
    shop.apply(BASE)
    apply(shop, AFTER, SPLIT)
    edited = plan(shop, AFTER, SPLIT + "  - sql: SELECT 1\n")
    assert [p.code for p in edited.blocked] == ["DF623"]


def test_a_backfill_keeps_the_values_before(shop: Shop) -> None:
    text = 'migration: loud\nsteps:\n  - backfill: {model: Customer, set: {name: "upper(name)"}}\n'
    shop.apply(BASE)
    shop.run(*ROWS)
    apply(shop, BASE, text)
    assert shop.rows("SELECT name FROM customer ORDER BY id") == [("ANN",), ("BOB",)]

    async def back() -> Outcome:
        migrator = shop.migrator(BASE)
        found = await migrator.plan_rollback()
        assert found.data_loss_warning == "values written to customer.name since then are replaced"
        return await migrator.rollback(Gate("HIGH", frozenset(found.plan.changes)))

    asyncio.run(back())
    assert shop.rows("SELECT name FROM customer ORDER BY id") == [("Ann",), ("Bob",)]


def test_a_backfill_of_two_fields_gives_both_back(shop: Shop) -> None:
    text = "migration: both\nsteps:\n  - backfill: {model: Order, set: {note: \"'y'\", total: total + 1}}\n"
    shop.apply(BASE)
    shop.run(*ROWS)
    before = shop.rows('SELECT id, total, note FROM "order" ORDER BY id')
    apply(shop, BASE, text)
    assert shop.rows("SELECT count(*) FROM \"order\" WHERE note = 'y'") == [(2,)]

    async def back() -> Outcome:
        found = await shop.migrator(BASE).plan_rollback()
        return await shop.migrator(BASE).rollback(Gate("HIGH", frozenset(found.plan.changes)))

    asyncio.run(back())
    assert shop.rows('SELECT id, total, note FROM "order" ORDER BY id') == before


def test_a_statement_has_a_probe_and_a_way_back(shop: Shop) -> None:
    text = """\
migration: views
steps:
  - sql: CREATE VIEW names AS SELECT name FROM customer
    down: DROP VIEW names
    probe: {sql: SELECT count(*) FROM customer, says: customers are there}
"""
    shop.apply(BASE)
    shop.run(ROWS[0])
    assert [p.what for p in plan(shop, BASE, text).blocked] == ["2 customers are there"]
    shop.run("DELETE FROM customer")
    found = plan(shop, BASE, text)
    assert (found.level, found.blocked) == ("MEDIUM", ())
    apply(shop, BASE, text)
    assert shop.rows("SELECT * FROM names") == []

    async def back() -> Outcome:
        found = await shop.migrator(BASE).plan_rollback()
        return await shop.migrator(BASE).rollback(Gate("HIGH", frozenset(found.plan.changes)))

    asyncio.run(back())
    with pytest.raises(Exception, match="names"):
        shop.rows("SELECT * FROM names")


def test_a_statement_without_a_way_back_is_high_and_one_that_fails_is_never_shown_as_a_plan(shop: Shop) -> None:
    shop.apply(BASE)
    statement = "migration: m\nsteps:\n  - sql: UPDATE customer SET name = 'x' WHERE id = 1\n"
    assert plan(shop, BASE, statement).level == "HIGH"
    with pytest.raises(TablesError):
        asyncio.run(shop.migrator(BASE, written=[written(statement)]).apply(Gate("HIGH")))
    wrong = plan(shop, BASE, "migration: m\nsteps:\n  - sql: UPDATE custmer SET name = 'x'\n")
    assert [p.code for p in wrong.blocked] == ["DF610"]
    assert "custmer" in wrong.blocked[0].why


@pytest.mark.parametrize(
    "sql",
    ["CREATE INDEX i ON customer (name)", "DROP INDEX i", "ALTER TABLE customer ADD CONSTRAINT c CHECK (id > 0)",
     "ALTER TABLE customer ALTER COLUMN name SET NOT NULL", "ALTER TABLE customer ALTER name TYPE text",
     "ALTER TABLE customer ADD UNIQUE (name)", "DROP TABLE customer", "ALTER TABLE customer RENAME TO client",
     "UPDATE customer SET name = ''", "TRUNCATE customer", "VACUUM FULL customer"],
)  # fmt: skip
def test_lint_finds_statements_that_hold_locks_or_lose_something(sql: str) -> None:
    document = parse_document(f'migration: m\nsteps:\n  - sql: "{sql}"\n'.encode(), "migrations/m.yaml")
    (found,) = lint(load_migration(document), document)
    assert (found.code, str(found.place)) == ("DF626", "migrations/m.yaml:3:10")


@pytest.mark.parametrize(
    "sql",
    ["CREATE INDEX CONCURRENTLY i ON customer (name)", "ALTER TABLE c ADD CONSTRAINT d CHECK (id > 0) NOT VALID",
     "UPDATE customer SET name = '' WHERE name IS NULL", "CREATE VIEW v AS SELECT 1"],
)  # fmt: skip
def test_lint_lets_the_careful_form_pass(sql: str) -> None:
    document = parse_document(f'migration: m\nsteps:\n  - sql: "{sql}"\n'.encode(), "migrations/m.yaml")
    assert lint(load_migration(document), document) == []
