"""Gates, stale plans, locks, several processes at once, and a process that is killed half-way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from runner.errors import DefinitionError, TablesError
from runner.migrate.apply import Limits
from runner.migrate.connection import Live, connect
from runner.migrate.gate import Gate
from runner.migrate.lock import held
from runner.migrate.migrator import Outcome
from runner.migrate.plan import PlanFile, read_plan
from runner.source import parse_document
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, CHANGES, ROWS, changed
from tests.migrate.test_written import written

PROJECT = Path(__file__).parents[2]
POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
DROP = changed("      note: string?\n", "")


def codes(caught: pytest.ExceptionInfo[TablesError]) -> list[str]:
    return [problem.code for problem in caught.value.problems]


def apply(shop: Shop, text: str, gate: Gate, file: PlanFile | None = None) -> Outcome:
    return asyncio.run(shop.migrator(text).apply(gate, file=file))


def as_file(text: str) -> PlanFile:
    return read_plan(parse_document(text.encode(), "plan.yaml"))


def test_high_changes_are_allowed_by_name_only(shop: Shop) -> None:
    shop.apply(BASE)
    for gate in (Gate(), Gate("HIGH")):
        with pytest.raises(TablesError) as caught:
            apply(shop, DROP, gate)
        assert codes(caught) == ["DF614"]
        assert caught.value.problems[0].fix == "--allow drop_column:order.note"
    assert apply(shop, DROP, Gate(allow=frozenset(["drop_column:order.note"]))).status == "applied"


def test_no_more_risk_than_was_said(shop: Shop) -> None:
    shop.apply(BASE)
    with pytest.raises(TablesError) as caught:
        apply(shop, CHANGES["another check"][0], Gate("LOW"))
    assert (codes(caught), caught.value.exit_code) == (["DF613"], 3)


def test_a_reviewed_plan_is_applied_and_another_is_refused(shop: Shop) -> None:
    shop.apply(BASE)
    text = shop.plan(DROP, frozenset(["drop_column:order.note"])).file()
    file = as_file(text)
    with pytest.raises(DefinitionError) as edited:
        as_file(text.replace("_dfrun_trash", "_dfrun_trush"))
    assert edited.value.problems[0].code == "DF612"
    with pytest.raises(TablesError) as stale:
        apply(shop, CHANGES["add a nullable field"][0], Gate(), file)
    assert codes(stale) == ["DF611"]
    assert apply(shop, DROP, Gate(), file).status == "applied"
    assert apply(shop, DROP, Gate(), file).status == "nothing"


def test_a_human_is_asked_and_may_say_no(shop: Shop) -> None:
    shop.apply(BASE)

    async def ask(said: frozenset[str] | None) -> str:
        return (await shop.migrator(DROP).apply(Gate("HIGH"), confirm=lambda plan: said)).status

    assert asyncio.run(ask(None)) == "declined"
    with pytest.raises(TablesError):
        asyncio.run(ask(frozenset()))
    assert asyncio.run(ask(frozenset(["drop_column:order.note"]))) == "applied"


def test_on_small_tables_the_lock_counts_for_nothing(shop: Shop) -> None:
    before = changed("note: string?", "note: string?\n      code: string?")
    after = before.replace("code: string?", "code: integer?")
    shop.apply(before)
    if shop.database == "postgresql":
        assert shop.plan(after).level == "HIGH"
        with pytest.raises(TablesError):
            apply(shop, after, Gate())
        assert apply(shop, after, Gate(small_table_rows=10)).status == "applied"
    else:
        assert apply(shop, after, Gate()).status == "applied"


def test_values_are_not_copied_above_the_limit(shop: Shop) -> None:
    before = changed("note: string?", "note: string?\n      code: string?")
    shop.apply(before)
    shop.run(*ROWS)
    plan = asyncio.run(shop.migrator(before.replace("code: string?", "code: integer?"), max_backup_rows=1).plan())
    assert [p.code for p in plan.blocked] == ["DF624"]


def test_phases_are_stopped_between_and_gone_on_with(shop: Shop) -> None:
    after = CHANGES["add a nullable field"][0].replace("check: {$gte: 0}", "check: {$gte: 1}")
    shop.apply(BASE)
    migrator = shop.migrator(after)
    if shop.database == "sqlite":
        with pytest.raises(TablesError):
            asyncio.run(migrator.apply(Gate(), until="expand"))
        return
    assert asyncio.run(migrator.apply(Gate(), until="expand")).status == "partial"
    assert "paid" in [row[0] for row in shop.rows("SELECT column_name FROM information_schema.columns "
                                                  "WHERE table_name = 'order' AND table_schema = current_schema()")]  # fmt: skip
    with pytest.raises(TablesError) as caught:
        asyncio.run(migrator.apply(Gate()))
    assert codes(caught) == ["DF616"]
    assert asyncio.run(migrator.resume()).status == "applied"
    assert shop.plan(after).steps == ()


@POSTGRESQL
def test_a_table_that_is_read_for_long_is_left_alone_and_tried_again(shop: Shop) -> None:
    after = CHANGES["add a nullable field"][0]
    shop.apply(BASE)

    async def work() -> tuple[list[str], int, str]:
        async with connect(shop.engine) as reader:
            await reader.execute("BEGIN")
            await reader.execute('SELECT * FROM "order"')
            migrator = shop.migrator(after, limits=Limits((50, 100), 3))
            with pytest.raises(Exception) as caught:
                await migrator.apply(Gate())
            await reader.execute("COMMIT")
        again = await shop.migrator(after).apply(Gate())
        return [p.code for p in caught.value.problems], caught.value.exit_code, again.status  # type: ignore[attr-defined]

    assert asyncio.run(work()) == (["DF615"], 75, "applied")


@POSTGRESQL
def test_those_who_wait_for_the_lock_are_served_by_priority(shop: Shop) -> None:
    shop.apply(BASE)

    async def work() -> tuple[list[int], list[str]]:
        order: list[str] = []

        async def wait(name: str, priority: int) -> None:
            async with held(shop.engine, schema, 20, priority):
                order.append(name)

        async with connect(shop.engine) as live:
            schema = live.schema
            async with held(shop.engine, schema, 5):
                low = asyncio.create_task(wait("low", 0))
                await asyncio.sleep(0.4)
                high = asyncio.create_task(wait("high", 5))
                await asyncio.sleep(0.4)
                found = await shop.migrator(BASE).status()
                assert found.is_locked
            await asyncio.gather(low, high)
        return [w.priority for w in found.waiting], order

    assert asyncio.run(work()) == ([5, 0], ["high", "low"])


@pytest.fixture
def project(shop: Shop, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A project folder and the URL of its database, for processes of their own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "models.yaml").write_text(BASE)
    if shop.database == "sqlite":
        return folder, f"sqlite:///{tmp_path}/test.db"
    url = sa.make_url(request.getfixturevalue("fresh_postgres"))
    return folder, url.render_as_string(hide_password=False)


def done(folder: Path, *words: str) -> tuple[int, str, str]:
    """Run dfrun to its end: status, output, problems."""
    process = dfrun(folder, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def dfrun(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from runner.cli import main; main()", *words]
    env = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], **environment}
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def test_of_several_processes_one_applies_and_the_others_find_nothing_to_do(project: tuple[Path, str]) -> None:
    folder, url = project
    running = [dfrun(folder, "migrate", "apply", "--database", url, "-o", "json") for _ in range(3)]
    told = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], told
    assert sorted(json.loads(out)["status"] for out, _ in told) == ["applied", "nothing", "nothing"]


def test_a_plan_is_the_same_bytes_in_every_process(project: tuple[Path, str]) -> None:
    folder, url = project
    words = ("migrate", "plan", "--database", url, "-o", "json")
    running = [dfrun(folder, *words, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    told = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert told[0] == told[1]
    assert told[0]["body"]["risk"] == "LOW"


@POSTGRESQL
def test_a_killed_migration_goes_on_where_it_stopped_and_does_nothing_twice(
    shop: Shop, project: tuple[Path, str]
) -> None:
    folder, url = project
    assert done(folder, "migrate", "apply", "--database", url)[0] == 0
    rows = ", ".join(f"('{n}@example.org', 'n')" for n in range(60))
    asyncio.run(_sql(url, f"INSERT INTO customer (email, name) VALUES {rows}"))
    (folder / "migrations").mkdir()
    (folder / "migrations" / "grow.yaml").write_text(
        "migration: grow\nsteps:\n"
        "  - backfill: {model: Customer, set: {name: \"name || 'x'\"}, batch_size: 2, pause_ms: 60}\n"
    )
    (folder / "models.yaml").write_text(CHANGES["add an index"][0])
    killed = dfrun(folder, "migrate", "apply", "--database", url)
    for _ in range(200):
        seen = asyncio.run(_sql(url, "SELECT count(*) FROM customer WHERE name = 'nx'"))
        if seen and seen > 4:
            break
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = asyncio.run(_sql(url, "SELECT count(*) FROM customer WHERE name = 'nx'"))
    assert 4 < before < 60
    assert json.loads(done(folder, "migrate", "status", "--database", url, "-o", "json")[1])["unfinished"] == 2
    refused = done(folder, "migrate", "apply", "--database", url)
    assert (refused[0], refused[2].partition(" ")[0]) == (3, "DF616")
    resumed = done(folder, "migrate", "resume", "--database", url)
    assert resumed[0] == 0, resumed[2]
    assert asyncio.run(_sql(url, "SELECT count(*) FROM customer WHERE name = 'nx'")) == 60
    check = done(folder, "migrate", "plan", "--check", "--database", url)
    assert check[1] == "nothing to do: the tables are as the models say\n"


@SQLITE
def test_a_killed_migration_on_sqlite_leaves_the_file_as_it_was(shop: Shop, project: tuple[Path, str]) -> None:
    folder, url = project
    assert done(folder, "migrate", "apply", "--database", url)[0] == 0
    asyncio.run(_sql(url, "INSERT INTO customer (email, name) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                          "WHERE i < 200000) SELECT i, 'n' FROM n"))  # fmt: skip
    (folder / "models.yaml").write_text(changed("[basic, gold]", "[basic, gold, silver]"))
    killed = dfrun(folder, "migrate", "apply", "--database", url)
    time.sleep(1.2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert asyncio.run(_sql(url, "SELECT count(*) FROM customer")) == 200_000
    assert (
        asyncio.run(_sql(url, "SELECT count(*) FROM sqlite_master WHERE name LIKE '\\_dfrun\\_new%' ESCAPE '\\'")) == 0
    )
    assert done(folder, "migrate", "apply", "--database", url)[0] == 0
    assert asyncio.run(_sql(url, "SELECT count(*) FROM customer")) == 200_000


async def _sql(url: str, sql: str) -> int | None:
    from runner.dialects.session import open_engine

    engine = open_engine(url, poolclass=sa.NullPool)
    try:
        async with connect(engine) as live:
            if sql.startswith("SELECT"):
                return int(await live.value(sql))
            await live.execute(sql)
            return None
    finally:
        await engine.dispose()


def test_rows_that_came_after_the_plan_stop_the_step_and_nothing_is_half_done(shop: Shop) -> None:
    after = CHANGES["make a field unique"][0]
    shop.apply(BASE)
    file = as_file(shop.plan(after).file())
    shop.run(*ROWS, "UPDATE \"order\" SET note = 'same'")
    with pytest.raises(TablesError) as caught:
        apply(shop, after, Gate(), file)
    assert codes(caught) == ["DF607"]
    shop.run("UPDATE \"order\" SET note = 'other' WHERE id = 1")
    assert apply(shop, after, Gate(), file).status == "applied"


def test_what_somebody_changed_by_hand_is_told_and_not_reverted(shop: Shop) -> None:
    shop.apply(BASE)
    shop.run("CREATE INDEX by_hand ON customer (name)", "CREATE TABLE other (id integer)")
    if shop.database == "postgresql":
        shop.run("ALTER TABLE customer DROP CONSTRAINT ck_values_customer_tier",
                 "ALTER TABLE customer ADD CONSTRAINT ck_values_customer_tier CHECK (tier::text = ANY (ARRAY['basic'::"
                 "varchar::text, 'gold'::varchar::text])) NOT VALID")  # fmt: skip
    found = asyncio.run(shop.migrator(BASE).drift())
    assert "index customer.by_hand: added by hand" in found.by_hand
    assert found.unmanaged == ("other",)
    if shop.database == "postgresql":
        assert found.pending == ("validate_constraint:customer.ck_values_customer_tier",)
    else:
        assert found.pending == ()
    shop.apply(CHANGES["another check"][0])
    assert "index customer.by_hand: added by hand" in asyncio.run(shop.migrator(BASE).drift()).by_hand
    allowed = frozenset(["drop_index:customer.by_hand"])
    plan = shop.plan(CHANGES["another check"][0], allowed)
    assert plan.changes == {"drop_index:customer.by_hand": "LOW"}


def test_a_table_of_somebody_else_is_taken_over_once(shop: Shop) -> None:
    key = (
        "bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY"
        if shop.database == "postgresql"
        else "INTEGER PRIMARY KEY"
    )
    shop.run(
        f"CREATE TABLE tag (id {key}, label varchar(5) NOT NULL, more text)", "INSERT INTO tag (label) VALUES ('a')"
    )
    models = "models:\n  Tag:\n    features: {timestamps: false}\n    fields: {label: string}\n"
    assert [p.code for p in shop.plan(models).blocked] == ["DF606"]
    assert asyncio.run(shop.migrator(models).baseline()) is not None
    assert asyncio.run(shop.migrator(models).baseline()) is None
    plan = shop.plan(models)
    assert plan.blocked == ()
    assert plan.changes["drop_column:tag.more"] == "HIGH"
    shop.apply(models)
    assert shop.plan(models).steps == ()
    assert shop.rows("SELECT id, label FROM tag") == [(1, "a")]


@POSTGRESQL
def test_an_index_whose_building_failed_is_built_anew(shop: Shop) -> None:
    after = CHANGES["add an index"][0].replace("fields: [note]", "fields: [note], unique: true")
    shop.apply(after)

    async def fail(live: Live) -> None:
        await live.execute("DROP INDEX ix_note")
        await live.execute("INSERT INTO customer (email, name) VALUES ('a', 'a')")
        await live.execute("INSERT INTO \"order\" (customer_id, total, note) VALUES (1, 1, 'x'), (1, 1, 'x')")
        with pytest.raises(sa.exc.DBAPIError):
            await live.execute('CREATE UNIQUE INDEX CONCURRENTLY ix_note ON "order" (note)')
        await live.execute('DELETE FROM "order" WHERE id = 1')

    shop.live(fail)
    plan = shop.plan(after)
    assert set(plan.changes) == {"rebuild_index:order.ix_note"}
    shop.apply(after)
    assert shop.plan(after).steps == ()


@POSTGRESQL
def test_a_user_who_may_create_no_schema_plans_all_the_same(shop: Shop, postgres_url: sa.URL) -> None:
    from runner.dialects.session import open_engine

    shop.apply(BASE)
    schema = shop.rows("SELECT current_schema()")[0][0]
    role = f"reader_{schema[-8:]}"
    shop.run(f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA {schema}, dfrun TO {role}",
             f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema}, dfrun TO {role}")  # fmt: skip
    try:
        settings = {"server_settings": {"search_path": schema}}
        limited = open_engine(postgres_url.set(username=role), poolclass=sa.NullPool, connect_args=settings)
        plan = asyncio.run(replace(shop.migrator(CHANGES["another check"][0]), engine=limited).plan())
        assert (set(plan.changes), plan.blocked) == ({"change_check:order.ck_check_order_total"}, ())
    finally:
        shop.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_webhook_is_told_and_its_failure_changes_nothing(shop: Shop) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    told: list[dict[str, object]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        outcome = shop.apply(BASE, webhook=f"http://127.0.0.1:{server.server_port}/hook")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert outcome.status == "applied"
    (record,) = told
    assert record["status"] == "applied" and record["risk"] == "LOW"
    assert not any("CREATE" in str(value) for value in record.values())


def test_the_ledger_adds_up(shop: Shop) -> None:
    shop.apply(BASE)
    shop.apply(CHANGES["another check"][0])
    migrations, metrics = asyncio.run(shop.migrator(BASE, slow_threshold_ms=0).history())
    assert [(m.kind, m.status) for m in migrations] == [("apply", "applied")] * 2
    assert (metrics.count, metrics.failed, metrics.slow) == (2, 0, 2)
    assert metrics.p95_ms >= metrics.average_ms > 0


def test_a_failing_statement_leaves_a_row_in_the_ledger_and_no_trace_elsewhere(shop: Shop) -> None:
    text = "migration: bad\nsteps:\n  - sql: INSERT INTO customer (email, name) VALUES ('a@example.org', 'x')\n"
    shop.apply(BASE)
    shop.run(ROWS[0])
    with pytest.raises(Exception) as caught:
        shop.apply(BASE, written=[written(text)])
    problem = caught.value.problems[0]  # type: ignore[attr-defined]
    assert problem.code == "DF617"
    assert "a@example.org" not in str(problem) + problem.why
    migrations, metrics = asyncio.run(shop.migrator(BASE).history())
    assert (migrations[-1].status, metrics.failed) == ("failed", 1)
    assert shop.rows("SELECT count(*) FROM customer") == [(2,)]
