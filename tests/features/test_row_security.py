"""`tenancy: database`: PostgreSQL itself keeps tenants apart, whoever writes the statement. Runs are a real role without
rights beyond its tables; what could get it round the policies is refused before anything runs.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from durable import Project, empty_database
from featured import Shop, given
from sqlalchemy.ext.asyncio import AsyncEngine
from warm import Warm

from runner.catalog import build_catalog
from runner.declarations import load_models
from runner.dialects.row_security import binding
from runner.dialects.session import open_engine
from runner.errors import DefinitionError
from runner.migrate.gate import Gate
from runner.migrate.migrator import Migrator
from runner.migrate.wanted import wanted_of
from runner.source import parse_document
from runner.tenancy import hidden_tables, refuse_bound, refuse_open
from schemas.types import Delivered, ValueProblem

MODELS = """\
models:
  Account:
    fields: {name: {type: string, unique: true}, sum: {type: integer, default: 0}}
    features: {multi_tenant: true, audit_log: true, soft_delete: true, versioned: true}
  Note:
    fields: {text: string}
"""
GRANTS = (
    "GRANT USAGE ON SCHEMA public, dfrun TO {app}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, dfrun TO {app}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {app}",
)


class Bank(Project):
    """A project whose migrations are the owner's, and whose runs are those of a role with no rights of its own."""

    def __init__(self, folder: Path, url: str, warm: Warm) -> None:
        super().__init__(folder, url, warm)
        self.app = f"app_{uuid.uuid4().hex[:8]}"
        self.as_app = sa.make_url(url).set(username=self.app).render_as_string(hide_password=False)
        (folder / "models.yaml").write_text(MODELS)
        self.say(tenancy="database")

    def say(self, tenancy: str) -> None:
        text = f"database: {json.dumps(self.as_app)}\ntenancy: {tenancy}\n"
        (self.folder / "dfrun.yaml").write_text(text + f"migrations: {{database: {json.dumps(self.url)}}}\n")

    def step(self, step: str, tenant: str = "acme", *words: str) -> tuple[int, str]:
        """The exit status of a run of one step, and what it gives or says."""
        self.write(f"a: {step}", tail="outputs: {a: a}")
        code, out, err = self.dfrun("p.yaml", "--tenant", tenant, "-o", "json", *words)
        return code, json.dumps(json.loads(out)["outputs"]["a"]) if code == 0 else out + err


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, postgres_url: sa.URL, warm: Warm) -> Iterator[Bank]:
    """Two tenants with accounts a and b, and one of its own name each."""
    with empty_database(postgres_url) as url:
        bank = Bank(tmp_path_factory.mktemp("bank"), url, warm)
        bank.rows(f"CREATE ROLE {bank.app} LOGIN")
        code, out, err = bank.dfrun("migrate", "apply", "--yes")
        assert code == 0, out + err
        for grant in GRANTS:
            bank.rows(grant.format(app=bank.app))
        for tenant in ("acme", "beta"):
            data = f"[{{name: a, sum: 1}}, {{name: b, sum: 2}}, {{name: {tenant}, sum: 4}}]"
            code, told = bank.step(f"{{node: Account.bulk_create, with: {{data: {data}}}}}", tenant)
            assert code == 0, told
        yield bank
        bank.rows(f"DROP OWNED BY {bank.app}")
        bank.rows(f"DROP ROLE {bank.app}")


@asynccontextmanager
async def as_app(url: str) -> AsyncIterator[tuple[AsyncEngine, AsyncEngine]]:
    """Engines of the owner and of a role that policies bind, on an empty database."""
    owner, role = open_engine(url, poolclass=sa.NullPool), f"app_{uuid.uuid4().hex[:8]}"
    async with owner.begin() as connection:
        await connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
    try:
        yield owner, open_engine(sa.make_url(url).set(username=role), poolclass=sa.NullPool)
    finally:
        async with owner.begin() as connection:
            await connection.exec_driver_sql(f"DROP OWNED BY {role}")
            await connection.exec_driver_sql(f"DROP ROLE {role}")


LOCK = "pg_advisory_xact_lock_shared({}, {})".format(*list(binding("beta").values.values())[:2])
WIDER = "set_config('dfrun.tenant', 'beta', true)"
TRIED = {
    "plainly": "select name from account",
    "by name": "select name from account where tenant_id = 'beta'",
    "quoted": 'select name from "account"',
    "another setting": f"with x as materialized (select {WIDER}) select a.name from x, account a",
    "another setting and its lock": f"with x as materialized (select {WIDER}, {LOCK}) select a.name from x, account a",
    "unlocked first": (
        f"with x as materialized (select pg_advisory_unlock_all(), {WIDER}, {LOCK}) select a.name from x, account a"
    ),
    "as nobody": "select a.name from account a, lateral (select set_config('role', 'none', true)) s",
}
SEEN = (TRIED["plainly"], TRIED["quoted"], TRIED["as nobody"])


def test_no_statement_of_ones_own_reaches_another_tenant(fresh_postgres: str) -> None:
    async def work() -> None:
        async with as_app(fresh_postgres) as (owner, app):
            shop = await Shop(owner, tenant="acme", text=MODELS, app=app).prepare()
            for tenant in ("acme", "beta"):
                await shop.of(tenant).do("Account.bulk_create", data=Delivered([{"name": n} for n in ("a", tenant)]))
            for way, sql in TRIED.items():
                found = {row[0] for row in await shop.rows("sql.query", sql=sql)}
                assert found == ({"a", "acme"} if sql in SEEN else set()), way

    asyncio.run(work())


REFUSED = [
    "select after from dfrun_audit_row", 'select after from "dfrun_audit_row"', "select outputs from dfrun.runs",
    'select outputs from "dfrun" . runs', "select query_to_xml('select * from dfrun_audit' || '_row', true, true, '')",
    'select U&"name" from account', "select * from ts_stat('select 1')",
    "alter table account disable row level security", "drop policy dfrun_tenant on account", "truncate account",
    "create view every as select * from account", "do $$ begin end $$", "set dfrun.tenant = 'beta'",
    r"select E'\'', after from dfrun_audit_row --'",
]  # fmt: skip


@pytest.mark.parametrize("sql", REFUSED)
def test_a_statement_that_no_policy_is_about_is_refused(sql: str) -> None:
    shop = Shop(open_engine("postgresql://nobody@/nowhere"), text=MODELS, app=open_engine("postgresql://app@/nowhere"))
    with pytest.raises(ValueProblem):
        asyncio.run(shop.do(f"sql.{'query' if sql.startswith('select') else 'execute'}", sql=sql))


def test_a_write_of_ones_own_is_recorded_and_stays_inside(bank: Bank) -> None:
    held = bank.rows("SELECT count(*), sum(sum) FROM account WHERE tenant_id = 'beta'")
    for sql, wanted in {
        "update account set sum = sum + 1": 0,
        "delete from account where name = 'beta'": 0,
        "insert into account (tenant_id, name, sum, version, created_at, updated_at) values ('beta', 'x', 1, 1, now(), now())": 1,
        "update account set tenant_id = 'beta' where name = 'acme'": 1,
    }.items():
        code, told = bank.step(f"{{node: sql.execute, with: {{sql: {json.dumps(sql)}}}}}")
        assert code == wanted, told
    assert bank.rows("SELECT count(*), sum(sum) FROM account WHERE tenant_id = 'beta'") == held
    assert bank.dfrun("audit", "verify", ".", "--database", bank.url)[0] == 0


def test_a_statement_of_ones_own_wants_a_tenant(bank: Bank) -> None:
    bank.write("a: {node: sql.query, with: {sql: select name from account}}")
    code, _, err = bank.dfrun("p.yaml")
    assert code == 2 and "DF432" in err


def test_a_dry_run_sees_its_own_tenant(bank: Bank) -> None:
    made = "{node: Account.bulk_create, with: {data: [{name: dry}]}}"
    bank.write(f"made: {made}\nall: {{node: Account.count, after: made}}", tail="outputs: {n: all.count}")
    code, out, err = bank.dfrun("p.yaml", "--tenant", "beta", "--dry-run", "-o", "json")
    assert (code, json.loads(out)["outputs"]) == (0, {"n": 4}), err
    assert bank.rows("SELECT count(*) FROM account WHERE name = 'dry'") == [(0,)]


def test_a_connection_that_was_used_is_bound_to_nobody(bank: Bank) -> None:
    async def work() -> None:
        host = sa.make_url(bank.as_app).query["host"]
        connection = await asyncpg.connect(host=host, user=bank.app, database=sa.make_url(bank.url).database)
        count = "SELECT count(*) FROM account"
        assert await connection.fetchval(count) == 0
        await connection.execute(f"SELECT {LOCK.replace('_xact', '')}")  # a lock of the session, left behind
        for tenant, seen in (("acme", 3), ("beta", 3), (None, 0), ("", 0)):
            async with connection.transaction():
                await connection.execute(binding(tenant).inlined())
                assert await connection.fetchval(count) == seen
                await connection.execute(binding("gamma").inlined())
                assert await connection.fetchval(count) == 0, "the first tenant of a transaction is its last"
            assert await connection.fetchval(count) == 0
        await connection.close()

    asyncio.run(work())


# --- before a run ------------------------------------------------------------------------------------------------

OPEN = {
    "superuser": ("ALTER ROLE {app} SUPERUSER", "ALTER ROLE {app} NOSUPERUSER", "is a superuser"),
    "bypass": ("ALTER ROLE {app} BYPASSRLS", "ALTER ROLE {app} NOBYPASSRLS", "has BYPASSRLS"),
    "member": ("GRANT postgres TO {app}", "REVOKE postgres FROM {app}", "may become postgres, which is a superuser"),
    "not its owner": ("ALTER TABLE account NO FORCE ROW LEVEL SECURITY", "ALTER TABLE account FORCE ROW LEVEL SECURITY",
                      "account is not under its policy"),
    "policy": ("CREATE POLICY more ON account USING (true)", "DROP POLICY more ON account", "policy more of account"),
    "view": ("CREATE VIEW every AS SELECT * FROM account; CREATE VIEW above AS SELECT * FROM every;"
             "GRANT SELECT ON above TO {app}", "DROP VIEW above; DROP VIEW every", "the view above leads to account"),
    "materialized": ("CREATE MATERIALIZED VIEW kept AS SELECT * FROM account; GRANT SELECT ON kept TO {app}",
                     "DROP MATERIALIZED VIEW kept", "the materialized view kept leads to account"),
}  # fmt: skip


def test_a_run_does_not_start_where_tenants_are_not_kept_apart(fresh_postgres: str) -> None:
    async def work() -> None:
        async with as_app(fresh_postgres) as (owner, app):
            await Shop(owner, tenant="acme", text=MODELS, app=app).prepare()

            async def do(text: str) -> None:
                async with owner.begin() as connection:
                    for statement in text.format(app=app.url.username).split(";"):
                        await connection.exec_driver_sql(statement)

            async def judged() -> None:
                async with app.connect() as connection:
                    await refuse_open(connection, ["account"])

            await judged()
            for before, after, words in OPEN.values():
                await do(before)
                with pytest.raises(DefinitionError) as caught:
                    await judged()
                assert [(p.code, words in p.what) for p in caught.value.problems] == [("DF435", True)], words
                await do(after)
            await do(
                "CREATE VIEW mine WITH (security_invoker = true) AS SELECT * FROM account; GRANT SELECT ON mine TO {app}"
            )
            await judged()

    asyncio.run(work())


def test_sqlite_is_refused_in_its_own_words(bank: Bank, tmp_path: Path) -> None:
    for words in (("p.yaml", "--tenant", "acme"), ("migrate", "apply", "--yes")):
        code, out, err = bank.dfrun(*words, "--database", f"sqlite:///{tmp_path}/x.db")
        assert code == 2 and "DF434" in out + err, out + err


# --- migrations --------------------------------------------------------------------------------------------------


def test_a_policy_comes_and_goes_with_the_setting_and_is_no_phantom(fresh_postgres: str) -> None:
    document = parse_document(MODELS.encode(), "models.yaml")
    declared = [(document, load_models(document))]

    async def work() -> None:
        engine = open_engine(fresh_postgres, poolclass=sa.NullPool)

        def migrator(tenancy: str) -> Migrator:
            models = build_catalog(declared, row_security=tenancy == "database").models
            return Migrator(engine, wanted_of(models, "postgresql", dict.fromkeys(models, "models.yaml")))

        async def becomes(tenancy: str, *changes: str) -> None:
            plan = await migrator(tenancy).plan()
            assert [change for change in plan.changes if not change.startswith("create_table")] == list(changes)
            await migrator(tenancy).apply(Gate("HIGH", frozenset(plan.changes)))
            assert not (await migrator(tenancy).plan()).steps, "a phantom difference"

        async def is_secured() -> object:
            async with engine.connect() as connection:
                asked = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'account'"
                return set((await connection.exec_driver_sql(asked)).one())

        async def by_hand(text: str) -> None:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(text)

        await becomes("database")
        assert await is_secured() == {True}
        await becomes("application", "drop_row_security:account")
        assert await is_secured() == {False}
        await becomes("database", "set_row_security:account")
        found = await migrator("database").plan_rollback()
        await migrator("database").rollback(Gate("HIGH", frozenset(found.plan.changes)))
        assert await is_secured() == {False}
        await becomes("database", "set_row_security:account")
        for text in (
            "ALTER POLICY dfrun_tenant ON account USING (true)", "ALTER TABLE account NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE account DISABLE ROW LEVEL SECURITY", "DROP POLICY dfrun_tenant ON account",
            "ALTER POLICY dfrun_tenant ON account TO postgres",
        ):  # fmt: skip
            await by_hand(text)
            await becomes("database", "set_row_security:account")
        await engine.dispose()

    asyncio.run(work())


def test_what_is_about_all_tenants_wants_a_role_that_sees_them(fresh_postgres: str) -> None:
    async def work() -> None:
        async with as_app(fresh_postgres) as (owner, app):
            shop = await Shop(owner, tenant="acme", text=MODELS, app=app).prepare()
            async with app.connect() as connection:
                assert await hidden_tables(connection, ["account", "note"]) == ["account"]
                with pytest.raises(DefinitionError) as caught:
                    await refuse_bound(connection, [shop.models["Account"].table])
                assert caught.value.problems[0].code == "DF436"
            async with owner.connect() as connection:
                await refuse_bound(connection, ["account"])

    asyncio.run(work())


# --- nodes ---------------------------------------------------------------------------------------------------------


ROWS = Delivered([{"sku": sku, "price": 1} for sku in "abc"])


def test_every_write_works_for_a_role_that_policies_bind(fresh_postgres: str) -> None:
    features = "{multi_tenant: true, soft_delete: true, versioned: true, audit_log: true}"

    async def work() -> None:
        async with as_app(fresh_postgres) as (owner, app):
            shop = await Shop(owner, features, tenant="acme", app=app).prepare()
            for tenant in ("beta", "acme"):
                here = shop.of(tenant)
                assert (await here.do("Product.bulk_create", data=ROWS))["created"] == 3
                assert await here.do("Product.bulk_upsert", "{key: [sku]}", data=ROWS) == {"created": 0, "updated": 3}
                skipped = await here.do("Product.bulk_create", "{conflict_resolution: skip}", data=ROWS)
                assert (skipped["created"], skipped["skipped"]) == (0, 3)
                assert await here.do("Product.bulk_update", "{key: [sku]}", data=ROWS) == {"updated": 3, "missing": 0}
                assert not (await here.do("Product.upsert", "{key: [sku]}", **given(sku="a", price=2)))["created"]
                assert (await here.do("Product.update", "{update: {price: 3}}", **given(sku="a")))["version"] == 5
                assert await here.do("Product.bulk_delete", "{filter: {sku: b}}") == {"deleted": 1}
                assert await here.do("Product.count") == {"count": 2}
                assert (await here.do("Product.delete", "{hard: true}", **given(sku="c")))["sku"] == "c"

    asyncio.run(work())
