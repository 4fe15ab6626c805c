"""Whether a database keeps tenants apart for the role that is connected: what `tenancy: database` asks before a run."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runner.dialects.base import Session
from runner.dialects.row_security import POLICY
from runner.errors import DefinitionError, Problem, StepError
from schemas.sqltext import SqlText, read_sql

_ROLES = """
SELECT r.rolname, r.rolname = session_user, r.rolsuper FROM pg_roles r
WHERE (r.rolsuper OR r.rolbypassrls) AND (pg_has_role(session_user, r.oid, 'MEMBER')
  OR pg_has_role(current_user, r.oid, 'MEMBER')) ORDER BY r.rolname <> session_user, 1"""
_TABLES = """
SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AND p.oid IS NOT NULL
FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = :policy
WHERE c.oid = ANY (SELECT to_regclass(quote_ident(name)) FROM unnest(CAST(:tables AS text[])) t(name)) ORDER BY 1"""
_POLICIES = """
SELECT c.relname, p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
WHERE p.polpermissive AND p.polname <> :policy
  AND c.oid = ANY (SELECT to_regclass(quote_ident(name)) FROM unnest(CAST(:tables AS text[])) t(name)) ORDER BY 1, 2"""
_OVER = """
WITH RECURSIVE over(view, base) AS (
  SELECT r.ev_class, c.oid FROM pg_class c
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE c.oid = ANY (SELECT to_regclass(quote_ident(name)) FROM unnest(CAST(:tables AS text[])) t(name))
      AND r.ev_class <> c.oid
  UNION
  SELECT r.ev_class, o.base FROM over o
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = o.view
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid WHERE r.ev_class <> o.view)"""
"""The views over some tables, those over other views among them."""
_VIEWS = f"""{_OVER}
SELECT DISTINCT v.relname, v.relkind::text, b.relname FROM over o
JOIN pg_class v ON v.oid = o.view JOIN pg_class b ON b.oid = o.base
WHERE has_any_column_privilege(v.oid, 'SELECT') AND (v.relkind = 'm' OR NOT EXISTS (
  SELECT FROM unnest(v.reloptions) option WHERE option IN ('security_invoker=true', 'security_invoker=on',
    'security_invoker=1', 'security_invoker=yes'))) ORDER BY 1"""


async def views_over(session: Session, tables: Collection[str]) -> set[str]:
    """The names, in lower case, of the views through which rows of these tables can be read."""
    if session.database == "postgresql":
        named = f"{_OVER} SELECT DISTINCT lower(v.relname) FROM over o JOIN pg_class v ON v.oid = o.view"
        return {str(name) for (name,) in await session.fetch(sa.text(named).bindparams(tables=list(tables)))}
    master = sa.table("sqlite_master", sa.column("name"), sa.column("sql"), sa.column("type"))
    asked = sa.select(sa.func.lower(master.c.name), master.c.sql).where(master.c.type == "view")
    views = {str(name): read_sql(str(text)).tables for name, text in await session.fetch(asked)}
    found: set[str] = set()
    while more := {name for name, used in views.items() if name not in found and used & {*tables, *found}}:
        found |= more
    return found


async def refuse_views(session: Session, sql: SqlText, tables: Collection[str]) -> None:
    """Raises `StepError` DF546 for a text that names a view over one of these tables: whether there is one is known in
    the database alone."""
    if tables and (named := sorted(sql.tables & await views_over(session, tables))):
        what = f"the view {named[0]!r} is over a table of tenants"
        why = "a text of your own carries no tenant, so it would reach the rows of all of them"
        fix = "tenancy: database in dfrun.yaml, or name the table itself with cross_tenant: true"
        raise StepError(Problem("DF546", what, None, why, fix))


def refuse_sqlite() -> DefinitionError:
    """DF434: SQLite has nothing to keep tenants apart with."""
    why = "SQLite has no row-level security and no roles: whoever opens the file reads all of it"
    fix = "tenancy: application, or a PostgreSQL database"
    return DefinitionError(Problem("DF434", "tenancy: database wants PostgreSQL", None, why, fix))


async def refuse_open(connection: AsyncConnection, tables: Collection[str]) -> None:
    """Raises `DefinitionError` DF435 for everything that would let this role see rows of other tenants."""
    problems: list[Problem] = []
    found = list(await connection.execute(sa.text(_ROLES)))
    # a superuser may become anyone
    for role, is_own, is_super in found[:1] if found and found[0][1] else found:
        can = "is a superuser" if is_super else "has BYPASSRLS"
        what = f"the role {role} {can}" if is_own else f"this role may become {role}, which {can}"
        problems.append(_open(what, "policies do not bind it", "CREATE ROLE app LOGIN NOSUPERUSER NOBYPASSRLS"))
    asked = {"tables": list(tables), "policy": POLICY}
    for table, is_secured in await connection.execute(sa.text(_TABLES), asked):
        if not is_secured:
            problems.append(_open(f"the table {table} is not under its policy", "", "dfrun migrate apply"))
    for table, policy in await connection.execute(sa.text(_POLICIES), asked):
        why = "permissive policies let through whatever one of them does"
        problems.append(_open(f"the policy {policy} of {table} lets more rows through", why,
                              f"DROP POLICY {policy} ON {table}, or create it AS RESTRICTIVE"))  # fmt: skip
    for view, kind, table in await connection.execute(sa.text(_VIEWS), {"tables": list(tables)}):
        word = "the materialized view" if kind == "m" else "the view"
        why = "it holds the rows of all tenants" if kind == "m" else "it reads as its owner, not as this role"
        fix = f"REVOKE ALL ON {view} FROM this role"
        fix += "" if kind == "m" else f", or ALTER VIEW {view} SET (security_invoker = true)"
        problems.append(_open(f"{word} {view} leads to {table}", why, fix))
    if problems:
        raise DefinitionError(problems)


def _open(what: str, why: str, fix: str) -> Problem:
    return Problem("DF435", f"tenants are not kept apart: {what}", None, why, fix)


async def refuse_bound(connection: AsyncConnection, tables: Collection[str]) -> None:
    """Raises `DefinitionError` DF436 unless this role sees the rows of all tenants."""
    hidden = await hidden_tables(connection, tables)
    if hidden:
        raise DefinitionError(hidden_rows(hidden, "this verb is about the rows of all tenants"))


async def hidden_tables(connection: AsyncConnection, tables: Collection[str]) -> list[str]:
    """Those of the tables whose rows a policy hides from this role."""
    text = "SELECT name FROM unnest(CAST(:tables AS text[])) t(name)"
    text += " WHERE row_security_active(to_regclass(quote_ident(name))) ORDER BY 1"
    return list((await connection.execute(sa.text(text), {"tables": list(tables)})).scalars())


def hidden_rows(tables: Collection[str], why: str) -> Problem:
    """DF436: a role that policies bind cannot do what is about the rows of all tenants."""
    fix = "--database with a role that has BYPASSRLS"
    return Problem("DF436", f"rows of {', '.join(tables)} are hidden from this role", None, why, fix)
