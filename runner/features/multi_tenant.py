"""`multi_tenant`: every row belongs to one tenant, and a run sees and writes the rows of its own alone.

This is the one place that adds the scope; `runner.sql.scoping` refuses a statement
that lacks it, knowing nothing of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runner.features.base import Scope
from runner.query import Insert, Load, Query, Upsert, Write
from schemas.filters import Compare, Filter
from schemas.shapes import TENANT, FieldShape
from schemas.types import ValueType

TENANT_LENGTH = 100


class MultiTenant:
    """Binds every query to the run's tenant: `tenant_id` in conditions, in new rows and in the key of an upsert."""

    name = "multi_tenant"

    def columns(self) -> Mapping[str, FieldShape]:
        """`tenant_id`: whose row it is."""
        kind = ValueType("string", max_length=TENANT_LENGTH)
        return {TENANT: FieldShape(TENANT, kind, managed=True)}

    def visible(self, query: Query, scope: Scope) -> Filter | None:
        """The tenant's own rows."""
        return Compare(TENANT, "$eq", _tenant(scope))

    def rewrite(self, write: Write, scope: Scope) -> Write:
        """New rows are the tenant's, and a key finds no row but its own."""
        own = {TENANT: _tenant(scope)}
        match write:
            case Insert():
                return replace(write, values={**write.values, **own})
            case Upsert():
                return replace(write, values={**write.values, **own}, key=(TENANT, *write.key))
            case Load():
                key = (TENANT, *write.key) if write.key else ()
                return replace(write, constants={**write.constants, **own}, key=key)
            case _:
                return write


def _tenant(scope: Scope) -> str:
    assert scope.tenant, "a run without a tenant is refused before its first step"
    return scope.tenant


FEATURE = MultiTenant()
