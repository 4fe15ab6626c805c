"""The index over words comes, goes and changes with its model, and is in step with its table whatever happens to it."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import sqlalchemy as sa

from runner.dialects.session import open_engine
from runner.migrate.gate import Gate
from runner.migrate.report import plan_sql, plan_text
from runner.query import Read
from runner.sql.statements import statement
from runner.sql.tables import build_tables
from schemas.searches import parse_search
from tests.migrate.conftest import Shop, shapes

BASE = """
models:
  Note:
    features: {timestamps: false}
    fields:
      title: string
      body: text?
      stars: integer?
"""
WORDS = BASE + "    postgresql: {text_search: [title, body]}\n"
ROWS = (
    "INSERT INTO note (title, body) VALUES ('Green tea', 'from São Paulo'), ('Black tea', NULL), ('Coffee', 'no tea')",
)


def found(shop: Shop, text: str, models: str = WORDS, model: str = "Note") -> list[object]:
    """The titles that a search finds, in the order of their keys."""
    shape = shapes(models)[model]
    read = Read(shape, ("title",), search=parse_search(text))
    asked = statement(read, build_tables(shapes(models), shop.database)[model], shop.database)

    async def work() -> list[object]:
        async with shop.engine.connect() as connection:
            return [row[0] for row in await connection.execute(asked)]

    return sorted(asyncio.run(work()), key=str)


def pending(shop: Shop, models: str) -> list[str]:
    return list(shop.plan(models).changes)


def test_a_table_that_is_made_with_it_has_no_difference_left(shop: Shop) -> None:
    shop.apply(WORDS)
    shop.run(*ROWS)
    assert pending(shop, WORDS) == []
    assert found(shop, "tea -coffee") == ["Black tea", "Green tea"]
    assert found(shop, '"sao paulo"') == ["Green tea"]


def test_it_comes_to_a_table_with_rows_and_is_taken_back(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run(*ROWS)
    plan = shop.plan(WORDS)
    assert list(plan.changes) == ["add_index:note.fts_note"]
    assert any("fts_note" in sql for step in plan.steps for sql in step.sql)
    assert len(plan_text(plan)) < 3_000
    if shop.database == "postgresql":
        assert "CREATE OR REPLACE FUNCTION dfrun_words_1(content text, longest integer) RETURNS text[] …" in plan_text(
            plan
        )
        assert "END $dfrun$;" in plan_sql(plan)
    shop.apply(WORDS)
    assert pending(shop, WORDS) == []
    assert found(shop, "tea") == ["Black tea", "Coffee", "Green tea"]
    back = asyncio.run(shop.migrator(BASE).rollback(Gate("HIGH", frozenset(["drop_index:note.fts_note"]))))
    assert back.status == "applied"
    assert pending(shop, BASE) == []
    shop.run("INSERT INTO note (title) VALUES ('later')", "UPDATE note SET title = 'x'", "DELETE FROM note")
    leftovers = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'fts%'"
    if shop.database == "postgresql":
        leftovers = "SELECT count(*) FROM pg_class WHERE relname LIKE 'fts_note%' AND pg_table_is_visible(oid)"
    assert shop.rows(leftovers) == [(0,)]


def test_other_fields_make_it_anew(shop: Shop) -> None:
    shop.apply(WORDS)
    shop.run(*ROWS)
    narrow = WORDS.replace("[title, body]", "[body]")
    assert pending(shop, narrow) == ["change_index:note.fts_note"]
    shop.apply(narrow)
    assert pending(shop, narrow) == []
    assert found(shop, "tea", narrow) == ["Coffee"]


def test_it_follows_a_field_and_a_model_that_are_renamed(shop: Shop) -> None:
    shop.apply(WORDS)
    shop.run(*ROWS)
    renamed = WORDS.replace("body: text?", "content: {type: text, nullable: true, renamed_from: body}")
    renamed = renamed.replace("[title, body]", "[title, content]")
    shop.apply(renamed)
    assert pending(shop, renamed) == []
    assert found(shop, "paulo", renamed) == ["Green tea"]
    moved = renamed.replace("  Note:\n", "  Memo:\n    renamed_from: Note\n")
    shop.apply(moved)
    assert pending(shop, moved) == []
    shop.run("UPDATE memo SET content = 'now here' WHERE title = 'Black tea'")
    assert found(shop, "here", moved, "Memo") == ["Black tea"]
    assert found(shop, "tea", moved, "Memo") == ["Black tea", "Coffee", "Green tea"]


def test_a_rebuilt_table_is_searched_as_before(shop: Shop) -> None:
    shop.apply(WORDS)
    shop.run(*ROWS, "DELETE FROM note WHERE title = 'Black tea'")
    after = WORDS.replace("stars: integer?", "stars: {type: integer, nullable: true, check: {$gte: 0}}")
    after = after.replace("title: string", "title: {type: string, max_length: 50}")
    shop.apply(after)
    assert pending(shop, after) == []
    shop.run("UPDATE note SET title = 'Oolong' WHERE title = 'Coffee'", "INSERT INTO note (title) VALUES ('White tea')")
    assert found(shop, "tea", after) == ["Green tea", "Oolong", "White tea"]
    assert found(shop, "coffee", after) == []


def test_a_searched_field_that_leaves_goes_to_the_trash_and_comes_back(shop: Shop) -> None:
    shop.apply(WORDS)
    shop.run(*ROWS)
    without = WORDS.replace("      body: text?\n", "").replace("[title, body]", "[title]")
    shop.apply(without)
    assert pending(shop, without) == []
    assert found(shop, "paulo", without) == []
    plan = asyncio.run(shop.migrator(without).plan_rollback()).plan
    asyncio.run(shop.migrator(without).rollback(Gate("HIGH", frozenset(plan.changes))))
    assert found(shop, "paulo") == ["Green tea"]


def test_a_model_that_leaves_and_comes_back_is_searched_again(shop: Shop) -> None:
    other = "\n  Other: {fields: {name: string}}\n"
    shop.apply(WORDS + other)
    shop.run(*ROWS)
    shop.apply("models:" + other)
    assert pending(shop, "models:" + other) == []
    plan = asyncio.run(shop.migrator("models:" + other).plan_rollback()).plan
    asyncio.run(shop.migrator("models:" + other).rollback(Gate("HIGH", frozenset(plan.changes))))
    assert pending(shop, WORDS + other) == []
    assert found(shop, "tea") == ["Black tea", "Coffee", "Green tea"]


def test_a_key_of_text_a_field_named_rowid_and_one_named_rank_are_no_matter(shop: Shop) -> None:
    models = """
models:
  Note:
    features: {timestamps: false}
    fields:
      sku: {type: string, primary_key: true}
      title: text
      rowid: text?
      rank: text?
      order: text?
    postgresql: {text_search: [title, rowid, rank, order]}
"""
    shop.apply(models)
    insert = "INSERT INTO note (sku, title, rowid, rank, \"order\") VALUES ('a', 'one', 'two', 'three', 'four')"
    shop.run(insert, "INSERT INTO note (sku, title) VALUES ('b', 'one')", "DELETE FROM note WHERE sku = 'b'")
    assert pending(shop, models) == []
    assert found(shop, "one two three four", models) == ["one"]
    shop.run("UPDATE note SET sku = 'c', rank = 'five'")
    assert found(shop, "one five -three", models) == ["one"]


def test_a_trigger_that_somebody_dropped_is_told_and_mended(tmp_path: Path) -> None:
    shop = Shop(open_engine(f"sqlite:///{tmp_path}/test.db", poolclass=sa.NullPool))
    shop.apply(WORDS)
    shop.run("DROP TRIGGER fts_note_update", *ROWS, "UPDATE note SET title = 'Mate' WHERE title = 'Coffee'")
    assert pending(shop, WORDS) == ["change_index:note.fts_note"]
    shop.apply(WORDS)
    assert pending(shop, WORDS) == []
    assert found(shop, "mate") == ["Mate"]
    assert found(shop, "coffee") == []


def test_a_user_who_may_create_no_schema_plans_among_temporary_tables(fresh_postgres: str) -> None:
    """A function of the temporary schema is found by its whole name alone."""
    owner, role = Shop(open_engine(fresh_postgres, poolclass=sa.NullPool)), f"clerk_{uuid.uuid4().hex[:8]}"
    other = "  Other: {fields: {name: string}}\n"
    owner.apply("models:\n" + other)  # it makes the ledger, too
    owner.run(
        f"CREATE ROLE {role}", f"GRANT CREATE, USAGE ON SCHEMA public, dfrun TO {role}",
        f"ALTER TABLE other OWNER TO {role}", f"GRANT ALL ON ALL TABLES IN SCHEMA dfrun TO {role}", f"GRANT ALL ON ALL SEQUENCES IN SCHEMA dfrun TO {role}",
    )  # fmt: skip
    settings = {"server_settings": {"role": role}}
    shop = Shop(open_engine(fresh_postgres, poolclass=sa.NullPool, connect_args=settings))
    try:
        assert shop.rows("SELECT current_user, has_database_privilege(current_database(), 'CREATE')") == [(role, False)]
        assert list(shop.plan(WORDS + other).changes) == ["create_table:note"]
        shop.apply(BASE + other)
        shop.apply(WORDS + other)
        shop.run(*ROWS)
        assert pending(shop, WORDS + other) == []
        assert pending(shop, WORDS.replace("[title, body]", "[body]") + other) == ["change_index:note.fts_note"]
        assert found(shop, "paulo") == ["Green tea"]
    finally:
        owner.run(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")
