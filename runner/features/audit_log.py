"""`audit_log`: every change of a row is recorded beside it. The database's own triggers do that (`runner.audit`), so
this feature rewrites nothing: what no write can leave out, no kind can forget.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.features.base import Scope
from runner.query import Query, Write
from schemas.filters import Filter
from schemas.shapes import FieldShape


class AuditLog:
    """Marks the models whose tables have the triggers."""

    name = "audit_log"

    def columns(self) -> Mapping[str, FieldShape]:
        """None: the trail has tables of its own."""
        return {}

    def visible(self, query: Query, scope: Scope) -> Filter | None:
        """Hides nothing."""
        return None

    def rewrite(self, write: Write, scope: Scope) -> Write:
        """The write as it is."""
        return write


FEATURE = AuditLog()
