"""Row-level security of PostgreSQL as `tenancy: database` uses it: the policy of a table, and what binds a transaction
to its tenant.

A setting alone would not do: a statement of the user's own could change it (`set_config`). So a transaction takes, with
the setting, an advisory lock whose two numbers come from the tenant's digest. Nothing can give such a lock back before
the transaction ends, and the policy lets nothing through unless it is the only one of its kind and fits the setting:
the first tenant of a transaction is its last.
"""

from __future__ import annotations

import hashlib

from runner.dialects.bound import Bound
from schemas.shapes import TENANT

POLICY = "dfrun_tenant"
SECURED = "row_security"
"""The mark in `Table.info` of a table with the policy."""
SETTING = "dfrun.tenant"
_NUMBERS = "lpad(to_hex(CAST(l.classid AS bigint)), 8, '0') || lpad(to_hex(CAST(l.objid AS bigint)), 8, '0')"
_DIGEST = f"left(encode(sha256(convert_to(current_setting('{SETTING}', true), 'UTF8')), 'hex'), 16)"
RULE = (
    f"{TENANT} = (SELECT CASE WHEN count(*) = 1 AND bool_and({_NUMBERS} = {_DIGEST})"
    f" THEN nullif(current_setting('{SETTING}', true), '') END FROM pg_catalog.pg_locks l"
    " WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.pid = pg_backend_pid())"
)
"""A row is seen and written by its own tenant alone; by nobody where none, or more than one, is bound. The sub-select
is asked once a statement, not once a row."""
DEFINITION = f"AS PERMISSIVE FOR ALL TO public USING ({RULE})"


def secured(table: str, definition: str = DEFINITION) -> list[str]:
    """The statements that put a table (its quoted name) under the policy, its owner included."""
    return [
        f"CREATE POLICY {POLICY} ON {table} {definition}",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
    ]


def unsecured(table: str) -> list[str]:
    """The statements that take the policy away."""
    return [
        f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        f"DROP POLICY {POLICY} ON {table}",
    ]


def binding(tenant: str | None) -> Bound:
    """What binds a transaction to its tenant, for good; without one, to no rows at all."""
    digest = hashlib.sha256((tenant or "").encode()).digest()
    high, low = (int.from_bytes(digest[start : start + 4], "big", signed=True) for start in (0, 4))
    text = (
        "SELECT pg_advisory_unlock_all(), pg_advisory_xact_lock_shared(:high, :low),"
        f" set_config('{SETTING}', :tenant, true)"
    )
    return Bound(text, {"high": high, "low": low, "tenant": tenant or ""})
