"""What is not guessed, not broken and not gone on with: each refusal says what to type."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from runner.dialects.session import open_engine
from runner.errors import DfrunError, TablesError
from runner.migrate.gate import Gate
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, ROWS, changed

POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
MOVED = changed("note: string?", "remark: string?")


def test_a_field_that_may_be_renamed_is_not_guessed(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run(*ROWS)
    (problem,) = shop.plan(MOVED).blocked
    assert (problem.code, problem.fix) == ("DF604", "renamed_from: note on remark, or removed: [note] on Order")
    assert "order.note is gone and order.remark is new" in problem.what
    removed = MOVED.replace("  Order:\n", "  Order:\n    removed: [note]\n")
    assert shop.plan(removed).changes == {"add_column:order.remark": "LOW", "drop_column:order.note": "HIGH"}
    renamed = MOVED.replace("remark: string?", "remark: {type: string, nullable: true, renamed_from: note}")
    assert shop.plan(renamed).changes == {"rename_column:order.remark": "MEDIUM"}
    assert shop.plan(MOVED, frozenset(["drop_column:order.note"])).blocked == ()


def test_a_rename_to_a_name_that_is_there_is_refused(shop: Shop) -> None:
    both = changed("note: string?", "note: string?\n      remark: string?")
    shop.apply(both)
    renamed = changed("note: string?", "remark: {type: string, nullable: true, renamed_from: note}")
    (problem,) = shop.plan(renamed).blocked
    assert (problem.code, problem.what) == ("DF605", "order.remark is renamed from 'note', and both are there")
    assert problem.fix == "drop 'note' by hand when its data has moved, or remove the hint"


def test_what_must_not_be_dropped_is_not(shop: Shop) -> None:
    kept = BASE.replace("  Order:\n", "  Order:\n    on_drop: forbid\n")
    shop.apply(kept)
    (problem,) = shop.plan(kept.replace("      note: string?\n", "")).blocked
    assert (problem.code, problem.fix) == ("DF609", "keep the field, or change on_drop")
    gone = BASE.replace("  Order:\n", "  Order:\n    on_drop: drop\n").replace("      note: string?\n", "")
    shop.apply(gone)
    assert len(shop.rows('SELECT * FROM "order"')) == 0
    assert "_dfrun_trash" not in str(shop.rows("SELECT name FROM pragma_table_info('order')" if shop.database == "sqlite" else
                                               "SELECT attname FROM pg_attribute WHERE attrelid = '\"order\"'::regclass AND attnum > 0 AND NOT attisdropped"))  # fmt: skip


@POSTGRESQL
def test_a_view_in_the_way_of_a_type_is_named(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run('CREATE VIEW totals AS SELECT total FROM "order"')
    plan = shop.plan(changed("precision: 12, scale: 2", "precision: 14, scale: 4"))
    assert ("DF608", "the view 'totals' uses order.total") in [(p.code, p.what) for p in plan.blocked]


@POSTGRESQL
def test_tables_that_were_changed_between_the_phases_are_not_gone_on_with(shop: Shop) -> None:
    after = changed("note: string?", "note: string?\n      paid: boolean?", "check: {$gte: 0}", "check: {$gte: 1}")
    shop.apply(BASE)
    migrator = shop.migrator(after)
    assert asyncio.run(migrator.apply(Gate(), until="expand")).status == "partial"
    shop.run('ALTER TABLE "order" ALTER paid SET DEFAULT true')
    with pytest.raises(TablesError) as caught:
        asyncio.run(migrator.resume())
    problem = caught.value.problems[0]
    assert (problem.code, problem.fix, caught.value.exit_code) == ("DF620", "dfrun migrate drift", 3)
    assert "column order.paid" in problem.why
    shop.run('ALTER TABLE "order" ALTER paid DROP DEFAULT')
    assert asyncio.run(migrator.resume()).status == "applied"


@POSTGRESQL
def test_a_trigger_that_changes_tables_behind_a_step_is_found_before_the_commit(
    engine: object, fresh_postgres: str, postgres_url: sa.URL
) -> None:
    url = postgres_url.set(database=sa.make_url(fresh_postgres).database)
    shop = Shop(open_engine(url, poolclass=sa.NullPool))
    shop.apply(BASE)
    shop.run(
        """CREATE FUNCTION sneak() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
             IF current_schema() = 'public' AND tg_tag = 'ALTER TABLE' AND NOT EXISTS (SELECT FROM information_schema.columns
               WHERE table_name = 'order' AND column_name = 'sneaky') THEN ALTER TABLE "order" ADD sneaky int; END IF;
           END $$""",
        "CREATE EVENT TRIGGER sneaks ON ddl_command_end EXECUTE FUNCTION sneak()",
    )
    after = changed("note: string?", "note: string?\n      paid: boolean?")
    with pytest.raises(DfrunError) as caught:
        shop.apply(after)
    assert caught.value.problems[0].code == "DF618"
    shop.run("DROP EVENT TRIGGER sneaks")
    assert set(shop.plan(after).changes) == {"add_column:order.paid"}
    assert shop.apply(after).status == "applied"


@POSTGRESQL
def test_missing_rights_are_told_as_that_and_nothing_is_changed(shop: Shop, postgres_url: sa.URL) -> None:
    """One user may not write the ledger, the other owns no table."""
    after = changed("note: string?", "note: string?\n      paid: boolean?")
    shop.apply(BASE)
    schema = shop.rows("SELECT current_schema()")[0][0]
    may = {"weak": "SELECT ON ALL TABLES", "other": "SELECT, INSERT, UPDATE ON ALL TABLES"}
    told = {}
    for name, rights in may.items():
        role = f"{name}_{schema[-8:]}"
        shop.run(f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA {schema}, dfrun TO {role}",
                 f"GRANT {rights} IN SCHEMA {schema}, dfrun TO {role}", f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA dfrun TO {role}")  # fmt: skip
        try:
            settings = {"server_settings": {"search_path": schema}}
            limited = open_engine(postgres_url.set(username=role), poolclass=sa.NullPool, connect_args=settings)
            with pytest.raises(DfrunError) as caught:
                asyncio.run(replace(shop.migrator(after), engine=limited).apply(Gate()))
            told[name] = caught.value.problems[0]
        finally:
            shop.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert {name: problem.code for name, problem in told.items()} == {"weak": "DF621", "other": "DF617"}
    assert all("the database user may not do this" in problem.what for problem in told.values())
    assert told["other"].why == "SQLSTATE 42501; nothing was changed"
    assert all(problem.fix == "grant the right to this user, or take another user" for problem in told.values())
    assert shop.apply(after).status == "applied"
