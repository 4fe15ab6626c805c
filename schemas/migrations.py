"""What `migrations/*.yaml` may say: steps by hand, for what a difference of models cannot tell."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from schemas.base import NAME, Declaration, Name, Switch, Whole
from schemas.values import ValueDeclaration, read_value_declaration

ModelName = Annotated[str, StringConstraints(pattern=NAME)]


class AddColumn(Declaration):
    """A field that the steps below it fill; nullable until the models require it."""

    model: ModelName
    """The model."""
    field: Name
    """The field; the models may have it too, or a later step drops it again."""
    type: Annotated[ValueDeclaration, BeforeValidator(read_value_declaration)]
    """Its type, as in the models."""


class Backfill(Declaration):
    """An UPDATE over a whole table, in batches by its key on PostgreSQL."""

    model: ModelName
    """The model."""
    set: Annotated[dict[Name, str], Field(min_length=1)]
    """An SQL expression for each field."""
    where: str = "true"
    """Only these rows; what holds no more once a row is done makes the step safe to repeat."""
    batch_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 5_000
    """Rows a batch, each a transaction of its own."""
    pause_ms: Annotated[Whole, Field(ge=0, le=60_000)] = 0
    """A pause after each batch, in milliseconds."""


class DropColumn(Declaration):
    """A field that leaves the table on purpose, so that nobody asks whether it was renamed."""

    model: ModelName
    """The model."""
    field: Name
    """The field, which the models do not have any more."""


class SqlByDatabase(Declaration):
    """One statement a database; a database without one skips the step."""

    postgresql: str | None = None
    """The statement on PostgreSQL."""
    sqlite: str | None = None
    """The statement on SQLite."""


class WrittenProbe(Declaration):
    """A count that must be 0 before the step."""

    sql: str
    """A SELECT that gives one number."""
    says: str = "rows are in the way"
    """What the rows are, after their number."""


class WrittenStep(Declaration):
    """Exactly one of `add_column`, `backfill`, `drop_column` and `sql`."""

    add_column: AddColumn | None = None
    """Adds a field before the difference is made."""
    backfill: Backfill | None = None
    """Fills fields."""
    drop_column: DropColumn | None = None
    """Says that a field is dropped on purpose."""
    sql: str | SqlByDatabase | None = None
    """A statement of your own, or one a database."""
    down: str | SqlByDatabase | None = None
    """What takes the statement back; without it the step is HIGH."""
    probe: WrittenProbe | None = None
    """A count that must be 0."""
    transaction: Switch = True
    """`false`: the statement runs in no transaction, as CONCURRENTLY wants it."""

    @model_validator(mode="after")
    def _is_one(self) -> WrittenStep:
        kinds = ("add_column", "backfill", "drop_column", "sql")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"a step is exactly one of {', '.join(kinds)}")
        if self.down is not None and self.sql is None:
            raise ValueError("down belongs to sql")
        return self


class WrittenMigration(Declaration):
    """A whole file of `migrations/`."""

    migration: Name
    """Its name; it is carried out once in each database."""
    steps: Annotated[tuple[WrittenStep, ...], Field(min_length=1)]
    """The steps, in order, before those that the difference of the models needs."""
