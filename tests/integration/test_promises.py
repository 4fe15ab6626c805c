"""What docs/durable.md promises about locks, settings, time limits, connections and order, each broken on purpose."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from durable import Project, empty_database, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine
from warm import Warm

from runner import api
from runner.dialects.errors import step_error
from runner.dialects.session import open_engine
from runner.dialects.store import Store
from runner.ledger.records import Ledger, StepKey
from runner.ledger.runs import NewRun, begin_run
from runner.ledger.tables import prepare_ledger


@pytest.fixture
def postgres(postgres_url: sa.URL) -> Iterator[str]:
    with empty_database(postgres_url) as url:
        yield url


@pytest.fixture
def server_project(tmp_path: Path, postgres: str, warm: Warm) -> Project:
    """On PostgreSQL, for what a file has not: server processes, row locks, a list of activities."""
    return Project(tmp_path, postgres, warm)


@asynccontextmanager
async def opened(engine: AsyncEngine):  # type: ignore[no-untyped-def]
    store = Store(engine, {})
    try:
        yield store
    finally:
        await store.close()


# --- nothing stays behind ---------------------------------------------------------------------------------------------


def test_a_killed_process_leaves_no_statement_and_no_lock(server_project: Project) -> None:
    """The server looks for its client once a second; a kill must not keep others waiting for the statement's end."""
    project = server_project
    project.write("""
        item: {node: Item.create, with: {sku: a}}
        held:
          transaction: true
          after: item
          steps:
            touch: {node: Item.update, with: {filter: {sku: a}, update: {stock: {$inc: 1}}}}
            sleep: {node: sql.query, with: {sql: "SELECT pg_sleep(60)"}, after: touch}
        """)
    run = project.start("p.yaml", "--run-id", "r1")
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    wait_until(lambda: project.rows(sleeping) == [(1,)])
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    wait_until(lambda: project.rows(sleeping) == [(0,)], 5)
    assert project.rows("UPDATE item SET stock = stock + 10 WHERE sku = 'a' RETURNING stock") == [(10,)]


def test_tables_made_in_a_transaction_go_with_it(engine: AsyncEngine) -> None:
    async def work() -> list[tuple[object, ...]]:
        async with opened(engine) as store:
            with pytest.raises(ZeroDivisionError):
                async with store.session() as session:
                    await session.execute(sa.text("CREATE TABLE short_lived (id integer)"))
                    raise ZeroDivisionError
            inspected = await store.fetch(sa.text(
                "SELECT count(*) FROM sqlite_master WHERE name = 'short_lived'" if store.database == "sqlite" else
                "SELECT count(*) FROM pg_class WHERE relname = 'short_lived'"
            ))  # fmt: skip
            return list(inspected)

    assert asyncio.run(work()) == [(0,)]


def test_a_connection_on_which_something_was_cancelled_is_never_used_again(engine: AsyncEngine) -> None:
    async def work() -> None:
        async with opened(engine) as store:
            await store.fetch(sa.text("SELECT 1"))
            [before] = store._idle
            asleep = "SELECT pg_sleep(30)" if store.database == "postgresql" else _LONG
            waiting = asyncio.create_task(store.fetch(sa.text(asleep)))
            await asyncio.sleep(0.2)
            waiting.cancel()
            if store.database == "sqlite":
                store.interrupt()
            await asyncio.wait([waiting])
            await store.fetch(sa.text("SELECT 1"))
            assert all(held is not before for held in (*store._idle, *store._busy))

    asyncio.run(work())


_LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000000) SELECT count(*) FROM n"


def test_a_commit_that_was_sent_is_waited_for(postgres: str) -> None:
    """Whoever is cancelled meanwhile has succeeded: what the server committed must not be told as undone."""

    async def work() -> None:
        async with opened(open_engine(postgres, poolclass=sa.NullPool)) as store:
            async with store.session() as session:
                for text in (
                    "CREATE TABLE item (id integer)",
                    "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
                    " 'BEGIN PERFORM pg_sleep(0.6); RETURN NULL; END'",
                    "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED"
                    " FOR EACH ROW EXECUTE FUNCTION dawdle()",
                ):
                    await session.execute(sa.text(text))
            is_done = False

            async def insert() -> None:
                nonlocal is_done
                async with store.session() as session:
                    await session.execute(sa.text("INSERT INTO item VALUES (1)"))
                is_done = True

            task = asyncio.create_task(insert())
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.wait([task])
            assert is_done
            assert await store.fetch(sa.text("SELECT count(*) FROM item")) == [(1,)]

    asyncio.run(work())


# --- settings, limits, retries ----------------------------------------------------------------------------------------


def test_every_transaction_on_postgresql_has_its_limits(server_project: Project) -> None:
    names = ("statement_timeout", "client_connection_check_interval", "lock_timeout",
             "idle_in_transaction_session_timeout")  # fmt: skip
    asked = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    columns = json.dumps(dict.fromkeys(names, "string"))
    server_project.write(f"""
        it: {{node: sql.query, timeout: 7s, with: {{sql: "SELECT {asked}", columns: {columns}}}}}
        """, tail="outputs: {found: it.rows}")  # fmt: skip
    code, out, err = server_project.dfrun("p.yaml", "-o", "json")
    assert code == 0, out + err
    assert json.loads(out)["outputs"]["found"] == [dict(zip(names, ("7s", "1s", "1min", "2min"), strict=True))]


def test_every_connection_to_a_file_has_its_settings(tmp_path: Path) -> None:
    async def work() -> list[object]:
        async with opened(open_engine(f"sqlite:///{tmp_path}/test.db", poolclass=sa.NullPool)) as store:
            asked = [await store.fetch(sa.text(f"PRAGMA {name}")) for name in (
                "journal_mode", "synchronous", "foreign_keys", "busy_timeout")]  # fmt: skip
            return [rows[0][0] for rows in asked]

    assert asyncio.run(work()) == ["wal", 2, 1, 30_000]


def test_a_statement_over_its_limit_is_ended_in_the_database(project: Project) -> None:
    asleep = "SELECT pg_sleep(60)" if project.url.startswith("postgresql") else _LONG
    project.write(f"""
        first: {{node: Item.create, with: {{sku: a}}}}
        long: {{node: sql.query, timeout: 300ms, with: {{sql: "{asleep}"}}, after: first}}
        """)
    code, out, _ = project.dfrun("p.yaml", "-o", "json", "--run-id", "r1")
    told = json.loads(out)
    assert (code, told["steps"]["long"]["state"], told["steps"]["long"]["error"]["class"]) == (
        1,
        "timed_out",
        "timeout",
    )
    assert told["steps"]["long"]["duration_ms"] < 6_000
    assert project.rows("SELECT sku FROM item") == [("a",)]
    assert project.rows(f"SELECT class FROM {project.ledger('attempts')}") == [("timeout",)]


_CLASSES = {
    "transient": ["40001", "40P01", "55P03", "25P03", "25006", "53300", "57P01", "57P02", "57P03", "08000", "08003",
                  "08006"],
    "timeout": ["57014"],
    "constraint": ["22003", "22012", "22P02", "23502", "23503", "23505", "23514", "23P01"],
    "error": ["42501", "42P01", "28000", "28P01", "53100", "53200", "58030", "XX000", "XX001", "0A000"],
}  # fmt: skip
"""guarantees by SQLSTATE: only what is transient is tried again by itself."""


def test_what_the_server_says_has_the_class_that_decides_about_retries(postgres: str) -> None:
    async def work() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in _CLASSES}
        async with opened(open_engine(postgres, poolclass=sa.NullPool)) as store:
            for state in itertools.chain(*_CLASSES.values()):
                text = f"DO $$ BEGIN RAISE EXCEPTION 'a row''s value' USING ERRCODE = '{state}'; END $$"
                try:
                    await store.fetch(sa.text(text))
                except Exception as error:
                    told = step_error(error, {})
                    assert "value" not in str(told.problem).replace("a value", "").replace("this value", "")
                    found[told.error_class].append(state)
        return found

    assert asyncio.run(work()) == _CLASSES


@pytest.mark.parametrize("error", [
    ConnectionRefusedError(), ConnectionResetError(), TimeoutError(), OSError("name or service not known"),
    asyncpg.InterfaceError("connection is closed"), asyncpg.InvalidCachedStatementError("cached plan"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_what_a_driver_says_without_a_code_may_pass_by_itself(error: Exception) -> None:
    assert step_error(error, {}).error_class == "transient"


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_of_two_executors_of_one_step_the_second_waits_and_finds_the_record(url: str) -> None:
    """Under one epoch, as after a COMMIT that was lost and a first transaction that is still open somewhere."""

    async def work() -> None:
        from datetime import UTC, datetime

        from runner.ledger.lease import this_process

        async with opened(open_engine(url, pool_size=0)) as store, opened(open_engine(url, pool_size=0)) as other:
            await prepare_ledger(store)
            new = NewRun("r1", "p", "", "/", "{}", "x", "{}", "y", datetime.now(UTC), None)
            mine = await begin_run(store, new, this_process(), "allow", lambda _: None)
            assert isinstance(mine, Ledger)
            theirs, key = Ledger(other, "r1", mine.epoch), StepKey("only")
            is_found = asyncio.Event()

            async def second() -> None:
                async with other.session(opening=[theirs.entering(key)]) as session:
                    assert session.entered == 0
                    is_found.set()

            async with store.session(opening=[mine.entering(key)]) as session:
                assert session.entered == 1
                waiting = asyncio.create_task(second())
                await asyncio.sleep(0.3)
                assert not is_found.is_set()
                await mine.leaving(session, key, {"id": 7}, None, 1)
            await waiting
            assert await theirs.value(await theirs.found(key)) == {"id": 7}

    asyncio.run(work())


def test_without_a_sign_of_life_no_further_step_begins(server_project: Project, tmp_path: Path) -> None:
    project = server_project
    project.write(f"""
        first: {{node: Item.create, with: {{sku: a}}}}
        wait: {{node: python.call, with: {{function: "work:waits", file: "{tmp_path}/go"}}, after: first}}
        last: {{node: Item.create, with: {{sku: b}}, after: wait}}
        """)
    run = project.start("p.yaml", "--run-id", "r1", "-o", "jsonl", DFRUN_LEASE_SECONDS="4")
    wait_until(lambda: '"step_started", "step": "wait"' in run.out.read_text())

    async def hold() -> None:
        connection = await asyncpg.connect(project.url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE dfrun.run_live IN EXCLUSIVE MODE")
            await asyncio.sleep(3.2)  # two thirds of the lease, and some
            (tmp_path / "go").touch()
            await asyncio.sleep(0.6)
            assert await connection.fetch("SELECT sku FROM item WHERE sku = 'b'") == []
        await connection.close()

    asyncio.run(hold())
    assert run.wait() == 0
    assert project.rows("SELECT sku FROM item ORDER BY sku") == [("a",), ("b",)]


# --- beside each other ------------------------------------------------------------------------------------------------


def test_fewer_connections_than_steps_only_take_longer(server_project: Project) -> None:
    """Steps hold no connection while they wait, so a run makes do with what the server gives it."""
    project, role = server_project, f"narrow_{uuid.uuid4().hex[:8]}"
    project.write("\n".join(f"s{n}: {{node: Item.create, with: {{sku: s{n}}}}}" for n in range(1)))
    assert project.dfrun("p.yaml")[0] == 0  # the owner makes the tables
    lines = "\n".join(
        f's{n}: {{node: sql.query, with: {{sql: "SELECT pg_sleep(0.3)"}}, retry: {{max: 0}}}}' for n in range(12)
    )
    project.write(lines)
    for text in (f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 4", f"GRANT ALL ON SCHEMA dfrun TO {role}",
                 f"GRANT ALL ON ALL TABLES IN SCHEMA dfrun TO {role}", f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
                 f"GRANT ALL ON SCHEMA public TO {role}"):  # fmt: skip
        project.rows(text)
    narrow = sa.make_url(project.url).set(username=role).render_as_string(hide_password=False)
    code, out, err = project.dfrun("p.yaml", "--database", narrow, "-o", "json", DFRUN_LEASE_SECONDS="3")
    assert code == 0, out + err
    assert {step["attempts"] for step in json.loads(out)["steps"].values()} == {1}
    project.rows(f"DROP OWNED BY {role}")
    project.rows(f"DROP ROLE {role}")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6))
def test_steps_beside_each_other_end_as_in_some_order(url: str, tmp_path: Path, seed: int) -> None:
    """Updates of one row that do not commute, with random connections: the outcome is that of one of the orders that
    these allow."""
    chance = random.Random(seed)
    count = 5
    acts = [chance.choice(["{$inc: 3}", "{$multiply: 2}", "{$dec: 5}"]) for _ in range(count)]
    after = {n: [m for m in range(n) if chance.random() < 0.3] for n in range(count)}
    name = f"row{seed}"
    lines = [f"  item: {{node: Item.create, with: {{sku: {name}, stock: 7}}}}"] + [
        f"  s{n}: {{node: Item.update, with: {{filter: {{sku: {name}}}, update: {{stock: {acts[n]}}}}},"
        f" after: [{', '.join(['item', *(f's{m}' for m in after[n])])}]}}"
        for n in range(count)
    ]
    (tmp_path / "models.yaml").write_text("models:\n  Item: {fields: {sku: string, stock: integer}}\n")
    (tmp_path / "dfrun.yaml").write_text(f"database: {json.dumps(url)}\nmigrate: auto\n")
    (tmp_path / "p.yaml").write_text("name: p\nsteps:\n" + "\n".join(lines) + "\n")
    result = asyncio.run(api.run_file(tmp_path / "p.yaml", api.RunOptions()))
    assert result.state == "succeeded", result.problems

    async def stock() -> int:
        async with opened(open_engine(url, poolclass=sa.NullPool)) as store:
            found = await store.fetch(sa.text("SELECT stock FROM item WHERE sku = :sku").bindparams(sku=name))
            return int(str(found[0][0]))

    does = {"{$inc: 3}": lambda x: x + 3, "{$multiply: 2}": lambda x: x * 2, "{$dec: 5}": lambda x: x - 5}
    allowed = set()
    for order in itertools.permutations(range(count)):
        if all(order.index(m) < order.index(n) for n in range(count) for m in after[n]):
            value = 7
            for n in order:
                value = does[acts[n]](value)
            allowed.add(value)
    assert asyncio.run(stock()) in allowed


def test_an_output_past_what_a_ledger_keeps_is_refused(project: Project) -> None:
    (project.folder / "work.py").write_text(
        "def much() -> str: return 'x' * (101 * 2**20)\ndef plain(x: str) -> int: return 1\n"
    )
    project.write("""
        much: {node: python.call, with: {function: "work:much"}}
        reads: {node: python.call, with: {function: "work:plain"}, inputs: {x: much.result}}
        last: {node: Item.create, with: {sku: a}, after: reads}
        """)
    begun = time.monotonic()
    code, out, _ = project.dfrun("p.yaml", "-o", "json")
    told = json.loads(out)
    assert (code, told["error"]["code"], told["error"]["step"]) == (1, "DF551", "much")
    assert project.rows(f"SELECT count(*) FROM {project.ledger('output_chunks')}") == [(0,)]
    assert time.monotonic() - begun < 60
