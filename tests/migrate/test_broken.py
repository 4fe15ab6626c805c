"""What breaks while a migration runs: the connection, at whatever message, and the disk. It is gone on with, or
nothing was changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from proxy import Cut, Proxy

from runner.dialects import session
from runner.dialects.session import open_engine
from runner.errors import DfrunError
from runner.migrate.gate import Gate
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, ROWS, changed

AFTER = changed(
    "[basic, gold]", "[basic, gold, silver]", "check: {$gte: 0}", "check: {$gte: 1}", "note: string?",
    "note: string?\n      paid: {type: boolean, default: false}", "[customer_id, -total]}",
    "[customer_id, -total]}\n      - {name: ix_note, fields: [note]}",
)  # fmt: skip
POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


@POSTGRESQL
@pytest.mark.parametrize("at", [3, 20, 40, 55, 70, 85, 100, 115])
def test_a_connection_that_breaks_leaves_what_can_be_gone_on_with(
    shop: Shop, fresh_postgres: str, postgres_url: sa.URL, at: int
) -> None:
    url = postgres_url.set(database=sa.make_url(fresh_postgres).database)
    direct = Shop(open_engine(url, poolclass=sa.NullPool))
    direct.apply(BASE)
    direct.run(*ROWS)
    with Proxy(url, Cut.BEFORE, at, lambda message: message[:1] in (b"P", b"Q")) as proxy:
        broken = open_engine(proxy.url, poolclass=sa.NullPool)
        with pytest.raises(Exception) as caught:
            asyncio.run(replace(direct.migrator(AFTER), engine=broken).apply(Gate()))
        assert proxy.cuts == 1
    if at > 60:  # while a plan is made, nothing can be left half done: that is told as any connection is
        assert isinstance(caught.value, DfrunError)
        assert (caught.value.problems[0].code, caught.value.exit_code) in (("DF617", 75), ("DF615", 75))

    async def end() -> str:
        migrator = direct.migrator(AFTER)
        found = await migrator.status()
        return (await (migrator.resume() if found.unfinished else migrator.apply(Gate()))).status

    assert asyncio.run(end()) == "applied"
    assert direct.plan(AFTER).steps == ()
    assert direct.rows('SELECT id, total, paid FROM "order" ORDER BY id') == [(1, 1999, False), (2, 500, False)]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pages", [3, 40])
def test_a_disk_that_is_full_changes_nothing(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """pages: how much room is left, for the copy in the ledger or half of the rebuilt table."""
    shop.apply(BASE)
    many = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i, hex(randomblob(30)) FROM n"
    shop.run(f"INSERT INTO customer (email, name) {many}")
    before = shop.rows("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name")
    size = shop.rows("PRAGMA page_count")[0][0]
    monkeypatch.setattr(session, "_PRAGMAS", (*session._PRAGMAS, f"max_page_count={size + pages}"))
    full = Shop(open_engine(f"sqlite:///{tmp_path}/test.db", poolclass=sa.NullPool))
    with pytest.raises(DfrunError) as caught:
        full.apply(AFTER)
    problem = caught.value.problems[0]
    assert problem.code in ("DF617", "DF621")
    assert "the disk is full" in problem.what and "nothing was changed" in problem.why
    monkeypatch.undo()
    assert shop.rows("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name") == before
    assert shop.rows("SELECT count(*) FROM customer") == [(3000,)]
    assert shop.apply(AFTER).status == "applied"
    assert shop.plan(AFTER).steps == ()
