"""What `dfrun.yaml` may say: the database of the project, its environments, and how tables come to be."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Declaration, Duration, Name, Whole


class DatabaseFromEnvironment(Declaration):
    """The URL stands in an environment variable, so that no password stands in Git."""

    env: str
    """The variable that holds the URL."""


DatabaseUrl = str | DatabaseFromEnvironment


class Environment(Declaration):
    """One place the pipelines run: its database, and whether `run` may create missing tables."""

    database: DatabaseUrl | None = None
    """The URL, or `{env: NAME}`."""
    migrate: Literal["auto", "manual"] | None = None
    """`auto`: `run` creates missing tables there."""


class Webhook(Declaration):
    """Where the end of a migration is told."""

    url: str | DatabaseFromEnvironment
    """An https address, or `{env: NAME}`."""
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    """The hosts that may be told; the address must be one of them."""


class Migrations(Declaration):
    """How `dfrun migrate` behaves."""

    timeout: Duration = timedelta(hours=1)
    """How long a migration may take, waiting for its lock included."""
    lock_tries: Annotated[Whole, Field(ge=1, le=1_000)] = 40
    """How often a step asks for a table's lock before it gives up."""
    max_backup_rows: Annotated[Whole, Field(ge=0)] = 5_000_000
    """Above this many rows, values are not copied before they change, and the plan is refused."""
    small_table_rows: Annotated[Whole, Field(ge=0)] = 0
    """Up to this many rows, how long a lock is held counts for nothing."""
    slow_threshold: Duration = timedelta(seconds=10)
    """Migrations that take longer are counted as slow."""
    database: DatabaseUrl | None = None
    """A direct connection for migrations, where the project's own goes through a pooler."""
    webhook: Webhook | None = None
    """Who is told when a migration ends."""


class Settings(Declaration):
    """A whole `dfrun.yaml`. `parallel` bounds the steps that run at once."""

    database: DatabaseUrl | None = None
    """The URL, or `{env: NAME}`; `dfrun.db` beside the project without it."""
    migrate: Literal["auto", "manual"] = "manual"
    """`auto`: `run` creates missing tables; `manual`: `dfrun migrate apply` does."""
    environments: dict[Name, Environment] = Field(default_factory=dict)
    """Places to run, chosen by `-e NAME`."""
    parallel: Annotated[Whole, Field(ge=1, le=256)] = 8
    """How many steps may run at once."""
    migrations: Migrations = Migrations()
    """How `dfrun migrate` behaves."""
