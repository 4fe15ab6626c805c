"""What `dfrun.yaml` may say: the database of the project, its environments, and how tables come to be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Declaration, Name, Whole


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
