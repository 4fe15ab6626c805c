"""What a model feature is: the columns it adds, the rows it hides, how it rewrites a write. Each is one file here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from runner.query import Query, Write
from schemas.filters import Filter
from schemas.shapes import FieldShape

if TYPE_CHECKING:
    from runner.encryption.vault import Vault


@dataclass(frozen=True, slots=True)
class Scope:
    """What a step's queries are bound to. `now` is the moment its run began; `tenant` is None where none is named.
    `run_id`, `step_id` and `actor` say whose work the trail of changes records; `vault` holds the keys where a model
    has encrypted fields."""

    now: datetime
    tenant: str | None = None
    run_id: str = ""
    step_id: str = ""
    actor: str = ""
    vault: Vault | None = None


class Feature(Protocol):
    """One feature. Stateless: one instance serves every model."""

    name: str

    def columns(self) -> Mapping[str, FieldShape]:
        """The managed fields that a model has by this feature."""
        ...

    def visible(self, query: Query, scope: Scope) -> Filter | None:
        """The rows this query may meet; None: all of them."""
        ...

    def rewrite(self, write: Write, scope: Scope) -> Write:
        """The write as this feature wants it done."""
        ...
