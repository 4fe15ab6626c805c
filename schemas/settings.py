"""What `dfrun.yaml` may say: the database of the project, its environments, and how tables come to be."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from schemas.base import Declaration, Duration, Name, Switch, Whole


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


class BackupByCommand(Declaration):
    """A backup that a program of your own makes before a migration that is more than LOW."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """The program and its arguments; it finds DFRUN_DATABASE_URL and DFRUN_BACKUP_FILE in its environment."""
    folder: str = "backups"
    """Where the file lies, relative to the project; the folder is made."""
    timeout: Duration = timedelta(hours=1)
    """How long it may take; the migration holds its lock meanwhile."""


class HttpHost(Declaration):
    """A host that `http.request` may reach."""

    host: str
    """Its name, or `name:port` where the port is not the usual one."""
    private: Switch = False
    """Whether it may lie in a private network, or be this very machine."""
    plain: Switch = False
    """Whether it may be reached without TLS (`http://`)."""


def _host(raw: object) -> object:
    """A name alone is the mapping with `host`."""
    return {"host": raw} if isinstance(raw, str) else raw


class Http(Declaration):
    """Where requests may go."""

    hosts: tuple[Annotated[HttpHost, BeforeValidator(_host)], ...] = ()
    """The hosts that `http.request` may reach: names, or `{host: …, private: true, plain: true}`."""


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
    backup: BackupByCommand | None = None
    """A backup by a program of your own, beside what migrations keep by themselves."""


class Key(Declaration):
    """Where a key comes from: 32 bytes in base64, never in YAML."""

    env: str | None = None
    """An environment variable."""
    file: str | None = None
    """A file, relative to the project."""
    command: tuple[str, ...] = ()
    """A program and its arguments, which prints the key."""

    @model_validator(mode="after")
    def _one_source(self) -> Key:
        if sum((self.env is not None, self.file is not None, bool(self.command))) != 1:
            raise ValueError("wants exactly one of env, file and command")
        return self


KeyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]


class EncryptionKeys(Declaration):
    """The keys of encrypted fields."""

    current: KeyId
    """The key that new values are sealed with."""
    keys: Annotated[dict[KeyId, Key], Field(min_length=1)]
    """Every key that values are still sealed with, by its id."""
    search: KeyId | None = None
    """The key of the index of searchable fields; the first one without it. It stays when `current` moves on."""

    @model_validator(mode="after")
    def _known(self) -> EncryptionKeys:
        for word, key in (("current", self.current), ("search", self.search)):
            if key is not None and key not in self.keys:
                raise ValueError(f"{word} names the key {key!r}, which is not among the keys")
        return self


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
    http: Http = Field(default_factory=Http)
    """Where `http.request` may send requests; nowhere without it."""
    migrations: Migrations = Field(default_factory=Migrations)
    """How `dfrun migrate` behaves."""
    encryption: EncryptionKeys | None = None
    """The keys of encrypted fields."""
    tenancy: Literal["application", "database"] = "application"
    """`database`: PostgreSQL itself keeps the tenants apart, by row-level security."""
