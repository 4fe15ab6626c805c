"""Each common change: planned, applied, and nothing left to plan; the rows are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.migrate.conftest import Shop

BASE = """\
models:
  Customer:
    features: {timestamps: false}
    fields:
      email: {type: string, max_length: 80, unique: true}
      name: string
      tier: {type: enum, values: [basic, gold], default: basic}
  Order:
    features: {timestamps: false}
    fields:
      customer_id: {type: integer, references: Customer.id, on_delete: cascade}
      total: {type: decimal, precision: 12, scale: 2, check: {$gte: 0}}
      note: string?
    indexes:
      - {fields: [customer_id, -total]}
"""
ROWS = [
    "INSERT INTO customer (email, name) VALUES ('a@example.org', 'Ann'), ('b@example.org', 'Bob')",
    "INSERT INTO \"order\" (customer_id, total, note) VALUES (1, 1999, 'x'), (2, 500, NULL)",
]


def changed(*pairs: str) -> str:
    text = BASE
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert old in text
        text = text.replace(old, new, 1)
    return text


CHANGES = {
    "nothing": (BASE, set(), "LOW"),
    "add a nullable field": (changed("note: string?", "note: string?\n      paid: boolean?"), {"add_column:order.paid"}, "LOW"),
    "add a field with a default": (
        changed("note: string?", "note: string?\n      state: {type: string, default: new}"), {"add_column:order.state"}, "LOW"),
    "add a model": (BASE + "  Tag:\n    fields: {label: string}\n", {"create_table:tag"}, "LOW"),
    "add an index": (changed("[customer_id, -total]}", "[customer_id, -total]}\n      - {name: ix_note, fields: [note]}"),
                     {"add_index:order.ix_note"}, "LOW"),
    "drop an index": (changed("    indexes:\n      - {fields: [customer_id, -total]}\n", ""),
                      {"drop_index:order.ix_order_customer_id_total"}, "LOW"),
    "change an index": (changed("- {fields: [customer_id, -total]}", "- {name: ix_order_customer_id_total, fields: [total]}"),
                        {"change_index:order.ix_order_customer_id_total"}, None),
    "make a field unique": (changed("note: string?", "note: {type: string, nullable: true, unique: true}"),
                            {"add_unique:order.uq_order_note"}, "MEDIUM"),
    "add timestamps": (changed("features: {timestamps: false}", "features: {timestamps: true}"),
                       {"add_column:customer.created_at", "add_column:customer.updated_at"}, "MEDIUM"),
    "require a field": (changed("name: string", "name: string?"), {"drop_not_null:customer.name"}, "MEDIUM"),
    "a value more in an enum": (changed("[basic, gold]", "[basic, gold, silver]"),
                                {"change_check:customer.ck_values_customer_tier"}, "MEDIUM"),
    "another check": (changed("check: {$gte: 0}", "check: {$gte: 1}"), {"change_check:order.ck_check_order_total"}, "MEDIUM"),
    "drop a check": (changed(", check: {$gte: 0}", ""), {"drop_check:order.ck_check_order_total"}, "MEDIUM"),
    "another action of a reference": (changed("on_delete: cascade", "on_delete: restrict"),
                                      {"change_foreign_key:order.fk_order_customer_id"}, "MEDIUM"),
    "drop a reference": (changed(", references: Customer.id, on_delete: cascade", ""),
                         {"drop_foreign_key:order.fk_order_customer_id"}, "MEDIUM"),
    "another default": (changed("default: basic", "default: gold"), {"set_default:customer.tier"}, None),
    "rename a field": (changed("name: string", "full_name: {type: string, renamed_from: name}"),
                       {"rename_column:customer.full_name"}, "MEDIUM"),
    "rename a model": (changed("  Customer:\n", "  Client:\n    renamed_from: Customer\n", "Customer.id", "Client.id"),
                       {"rename_table:client"}, "MEDIUM"),
    "drop a field": (changed("      note: string?\n", ""), {"drop_column:order.note"}, "HIGH"),
    "drop a model": (BASE[: BASE.index("  Order:")], {"drop_table:order"}, "HIGH"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_applied_and_gone(shop: Shop, name: str) -> None:
    after, wanted, level = CHANGES[name]
    shop.apply(BASE)
    shop.run(*ROWS)
    plan = shop.plan(after)
    assert not plan.blocked
    assert set(plan.changes) >= wanted
    assert bool(plan.changes) == bool(wanted)
    assert level is None or plan.level == level
    done = shop.apply(after)
    assert done.status == ("applied" if wanted else "nothing")
    again = shop.plan(after)
    assert (again.steps, again.blocked, again.drifted) == ((), (), ())
    table = "client" if name == "rename a model" else "customer"
    assert shop.rows(f"SELECT id, email FROM {table} ORDER BY id") == [(1, "a@example.org"), (2, "b@example.org")]
    if "drop a model" not in name:
        assert shop.rows('SELECT count(*), sum(total) FROM "order"')[0][0] == 2


def test_a_plan_is_the_same_bytes_every_time(shop: Shop) -> None:
    shop.apply(BASE)
    after = CHANGES["add timestamps"][0].replace("[basic, gold]", "[basic, gold, silver]")
    texts = {shop.plan(after).hash for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.parametrize("word", ["unique", "required", "type", "check"])
def test_rows_that_do_not_fit_block_the_plan_and_are_counted(shop: Shop, word: str) -> None:
    before = changed("name: string", "name: string?", "note: string?", "note: string?\n      code: string?")
    after = {
        "unique": before.replace("name: string?", "name: {type: string, nullable: true, unique: true}"),
        "required": before.replace("name: string?", "name: string"),
        "type": before.replace("code: string?", "code: integer?"),
        "check": before.replace("check: {$gte: 0}", "check: {$gte: 1000}"),
    }[word]
    shop.apply(before)
    shop.run(
        "INSERT INTO customer (email, name) VALUES ('a', 'Ann'), ('b', 'Ann'), ('c', NULL)",
        "INSERT INTO \"order\" (customer_id, total, code) VALUES (1, 999, '12abc')",
    )
    plan = shop.plan(after)
    assert [p.code for p in plan.blocked] == ["DF607"], plan.blocked
    assert (
        plan.blocked[0].what
        == {
            "unique": "1 value of name stands in more than one row of customer",
            "required": "1 row of customer has no name",
            "type": f"1 row of order has a value in code that is no {'bigint' if shop.database == 'postgresql' else 'integer'}",
            "check": "1 row of order breaks ck_check_order_total",
        }[word]
    )


def test_the_copy_of_an_sqlite_file_lies_beside_it(shop: Shop, tmp_path: Path) -> None:
    shop.apply(BASE)
    done = shop.apply(CHANGES["another check"][0])
    if shop.database == "sqlite":
        assert done.file_backup is not None and done.file_backup.is_file()
    else:
        assert done.file_backup is None


def test_a_default_keeps_its_line_breaks(shop: Shop) -> None:
    text = changed("note: string?", 'note: {type: text, default: "one  two\\n\\tit\'s three"}')
    shop.apply(text)
    shop.run(ROWS[0], 'INSERT INTO "order" (customer_id, total) VALUES (1, 5)')
    assert shop.rows('SELECT note FROM "order"') == [("one  two\n\tit's three",)]
    assert shop.plan(text).changes == {}
    shop.apply(text.replace("three", "four"))
    shop.run('INSERT INTO "order" (customer_id, total) VALUES (1, 5)')
    assert shop.rows('SELECT note FROM "order" ORDER BY id DESC LIMIT 1') == [("one  two\n\tit's four",)]
