"""What a step may ask of its database: one transaction on one connection. Each database keeps this promise in a file of
its own beside this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from schemas.shapes import ModelShape

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.sql.base import Executable


class Session(Protocol):
    """One transaction. It commits when its block ends well and rolls back otherwise."""

    database: Literal["postgresql", "sqlite"]

    def table(self, model: ModelShape) -> Table:
        """The table of a model."""
        ...

    def table_named(self, model: str) -> Table:
        """The table of the model with this name."""
        ...

    async def fetch(self, statement: Executable) -> list[tuple[object, ...]]:
        """All rows, each value in its Python type."""
        ...

    def stream(self, statement: Executable, rows_per_batch: int = 5_000) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows in batches from a cursor of the server; memory stays bounded."""
        ...

    async def ask(self, statement: Executable) -> tuple[tuple[str, ...], AsyncIterator[list[tuple[object, ...]]]]:
        """The names of the columns, and the rows in batches."""
        ...

    async def execute(self, statement: Executable, parameters: Any = None) -> int:
        """How many rows the statement changed; `parameters` is a mapping, or a list of them for many rows."""
        ...

    async def driver(self) -> Any:
        """The driver's own connection, inside the transaction, for the fast paths of one database."""
        ...
