"""Which database a run uses, and opening it: reachable, with its tables in place, or one clear problem."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import DefinitionError, Problem, TablesError, UnreachableError, did_you_mean
from schemas.settings import DatabaseFromEnvironment, Settings
from schemas.shapes import ModelShape

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runner.dialects.session import Store
    from runner.livetables import TableState


@dataclass(frozen=True, slots=True)
class Target:
    """A database to run on. `source` says where the URL came from; `creates_tables`: missing tables are created."""

    url: str
    source: str
    creates_tables: bool

    @property
    def shown(self) -> str:
        """The URL without its password."""
        from sqlalchemy import make_url

        return make_url(self.url).render_as_string(hide_password=True).replace("%2F", "/")

    @property
    def is_missing_file(self) -> bool:
        """Whether this is an SQLite file that is not there yet."""
        return self.url.startswith("sqlite:///") and not self.file.exists()

    @property
    def file(self) -> Path:
        """The file of an SQLite database."""
        return Path(self.url.removeprefix("sqlite:///").partition("?")[0])


def choose_database(option: str | None, settings: Settings, environment: str | None, project: Path) -> Target:
    """`--database`, else DFRUN_DATABASE_URL, else DATABASE_URL, else `dfrun.yaml`, else `dfrun.db` beside the project.

    Raises `DefinitionError` DF420 for a URL that cannot be meant, DF407 for an unknown environment.
    """
    named = settings.environments.get(environment) if environment else None
    if environment and named is None:
        fix = did_you_mean(environment, settings.environments) or "declare it under environments: in dfrun.yaml"
        raise DefinitionError(Problem("DF407", f"there is no environment {environment!r}", None, "", fix))
    migrates = ((named.migrate if named else None) or settings.migrate) == "auto"
    declared = (named.database if named else None) or settings.database
    candidates = [("--database", option)]
    if named is None or named.database is None:
        # an environment that was asked for by name is meant, whatever the shell happens to export
        candidates += [(name, os.environ.get(name)) for name in ("DFRUN_DATABASE_URL", "DATABASE_URL")]
    if isinstance(declared, DatabaseFromEnvironment):
        value = os.environ.get(declared.env)
        if value is None and not any(url for _, url in candidates):
            what = f"the environment variable {declared.env}, which dfrun.yaml names, is not set"
            raise UnreachableError(Problem("DF421", what, None, "", f"export {declared.env}=…"))
        candidates.append((declared.env, value))
    else:
        candidates.append(("dfrun.yaml", declared))
    for source, url in candidates:
        if url:
            return Target(_absolute(_known(url, source), source, project), source, migrates)
    return Target(f"sqlite:///{(project / 'dfrun.db').resolve()}", "the default", True)


def _known(url: str, source: str) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        what = f"{source}: this is not a database URL"
        raise DefinitionError(
            Problem("DF420", what, None, "", "postgresql://user@host/name or sqlite:///file.db")
        ) from None
    name = parsed.get_backend_name()
    if name == "postgres":
        return parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    if name not in ("postgresql", "sqlite"):
        what = f"{source}: {name} is not a database dfrun runs on"
        raise DefinitionError(Problem("DF420", what, None, "", "postgresql://… or sqlite:///…"))
    if name == "sqlite" and parsed.database in (None, "", ":memory:"):
        what = f"{source}: an SQLite database is a file here"
        raise DefinitionError(Problem("DF420", what, None, "steps use connections of their own", "sqlite:///file.db"))
    return url


def _absolute(url: str, source: str, project: Path) -> str:
    """A relative SQLite path in `dfrun.yaml` starts at the project; one that was typed starts where the user stands."""
    if source == "dfrun.yaml" and url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        return f"sqlite:///{(project / url.removeprefix('sqlite:///')).resolve()}"
    return url


@asynccontextmanager
async def open_store(target: Target, models: Mapping[str, ModelShape], parallel: int) -> AsyncIterator[Store]:
    """The database with all its tables in place.

    Raises `UnreachableError` DF422 when it cannot be reached, `TablesError` DF602 when tables are missing and may not
    be created here, DF603 when a live table is not as declared.
    """
    from sqlalchemy import make_url

    from runner.audit.triggers import track, untracked_models
    from runner.dialects.session import Store, open_engine
    from runner.livetables import compare_tables, create_tables
    from runner.tables import build_tables

    if target.is_missing_file and models and not target.creates_tables and target.file.parent.is_dir():
        raise _tables_missing(list(models))  # opening it would leave an empty file behind
    name = make_url(target.url).get_backend_name()
    tables = build_tables(models, "sqlite" if name == "sqlite" else "postgresql")
    engine = open_engine(target.url, pool_size=parallel + 2, max_overflow=0)
    store = Store(engine, tables)
    try:
        async with _reached(target):
            async with engine.connect() as connection:
                state = await compare_tables(connection, tables)
                untracked = await untracked_models(connection, models, tables)
                await connection.rollback()
            if state.missing and not state.differing and target.creates_tables:
                async with store.session() as session:
                    # another process may have been faster: look again inside the transaction
                    state = await compare_tables(session.connection, tables)
                    await create_tables(session.connection, tables, state.missing)
            if untracked and not state.differing and target.creates_tables:
                async with store.session() as session:
                    await track(session.connection, models, tables, untracked)
        if state.differing:
            raise TablesError(state.differing)
        if state.missing and not target.creates_tables:
            raise _tables_missing(state.missing)
        if untracked and not target.creates_tables:
            what = f"no trail is kept of the changes of {', '.join(untracked)}"
            why = "audit_log records by triggers, which are made when you say so"
            raise TablesError(Problem("DF640", what, None, why, "dfrun migrate apply, or migrate: auto in dfrun.yaml"))
        yield store
    finally:
        await engine.dispose()


@asynccontextmanager
async def open_connection(target: Target) -> AsyncIterator[AsyncConnection]:
    """A connection for reading what dfrun keeps beside the models. Raises `UnreachableError` DF422."""
    from runner.dialects.session import open_engine

    if target.is_missing_file:
        raise UnreachableError(Problem("DF422", f"the database {target.shown} cannot be reached", None, "no such file"))
    engine = open_engine(target.url)
    try:
        async with _reached(target), engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def _tables_missing(names: Sequence[str]) -> TablesError:
    fix = "dfrun migrate apply, or migrate: auto in dfrun.yaml"
    why = "on a database of your own, tables are created when you say so"
    return TablesError(Problem("DF602", f"tables are missing: {', '.join(names)}", None, why, fix))


async def table_state(target: Target, models: Mapping[str, ModelShape]) -> TableState:
    """How the live tables stand to the models; changes nothing. Raises `UnreachableError` DF422."""
    from sqlalchemy import make_url

    from runner.dialects.session import open_engine
    from runner.livetables import compare_tables
    from runner.tables import build_tables

    name = make_url(target.url).get_backend_name()
    tables = build_tables(models, "sqlite" if name == "sqlite" else "postgresql")
    engine = open_engine(target.url)
    try:
        async with _reached(target), engine.connect() as connection:
            return await compare_tables(connection, tables)
    finally:
        await engine.dispose()


@asynccontextmanager
async def _reached(target: Target) -> AsyncIterator[None]:
    """Whatever goes wrong inside is told as a database that cannot be reached."""
    from runner.dialects.errors import is_database_error, unreachable

    if target.url.startswith("sqlite:///") and not target.file.parent.is_dir():
        what = f"the database {target.shown} cannot be reached"
        fix = f"mkdir -p {target.file.parent}"
        raise UnreachableError(Problem("DF422", what, None, "there is no such folder", fix))
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise UnreachableError(unreachable(error, target.shown)) from error
    except Exception as error:
        if not is_database_error(error):
            raise
        raise UnreachableError(unreachable(error, target.shown)) from error
