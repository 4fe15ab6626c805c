"""What `dfrun.yaml` may say: the database of the project, its environments, and how tables come to be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Declaration, Name, Whole


class DatabaseFromEnvironment(Declaration):
    """The URL stands in an environment variable, so that no password stands in Git."""

    env: str


DatabaseUrl = str | DatabaseFromEnvironment


class Environment(Declaration):
    """One place the pipelines run: its database, and whether `run` may create missing tables."""

    database: DatabaseUrl | None = None
    migrate: Literal["auto", "manual"] | None = None


class Settings(Declaration):
    """A whole `dfrun.yaml`. `parallel` bounds the steps that run at once."""

    database: DatabaseUrl | None = None
    migrate: Literal["auto", "manual"] = "manual"
    environments: dict[Name, Environment] = Field(default_factory=dict)
    parallel: Annotated[Whole, Field(ge=1, le=256)] = 8
