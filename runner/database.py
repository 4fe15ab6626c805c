"""Which database a run uses, and opening it: reachable, with its tables in place, or one clear problem."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import DefinitionError, Problem, TablesError, UnreachableError, did_you_mean
from schemas.settings import DatabaseFromEnvironment, Settings
from schemas.shapes import ModelShape

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runner.dialects.store import Store
    from runner.migrate.migrator import Migrator
    from runner.migrate.plan import MigrationPlan
    from runner.migrate.written import Written
    from runner.sql.filters import Database


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
    def database(self) -> Database:
        """Which of the two databases it is."""
        from sqlalchemy import make_url

        return "sqlite" if make_url(self.url).get_backend_name() == "sqlite" else "postgresql"

    @property
    def is_missing_file(self) -> bool:
        """Whether this is an SQLite file that is not there yet."""
        return self.url.startswith("sqlite:///") and not self.file.exists()

    @property
    def for_reading(self) -> Target:
        """The same, or an empty database in memory where the file is not there yet: looking leaves no file behind."""
        return replace(self, url="sqlite://") if self.is_missing_file and self.file.parent.is_dir() else self

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
async def open_store(
    target: Target,
    models: Mapping[str, ModelShape],
    sources: Mapping[str, str] | None = None,
    written: Sequence[Written] = (),
    *,
    of_all_tenants: bool = False,
) -> AsyncIterator[Store]:
    """The database with all its tables as the models say.

    sources: the file of each model, by its path in the project. written: the project's hand-written migrations.
    of_all_tenants: what is done is about the rows of all tenants; without it the database must keep them apart where
    the project says so (DF434, DF435).
    Raises `UnreachableError` DF422 when it cannot be reached, `TablesError` DF602 when tables are missing and DF603
    when they differ, unless all that is pending is harmless and may be done here.
    """
    from runner.dialects.session import open_engine
    from runner.dialects.store import Store
    from runner.migrate.gate import Gate
    from runner.sql.tables import build_tables

    check_file(target, models)
    engine = open_engine(target.url, pool_size=0)  # as many as work at once; the store holds and bounds them
    store = Store(engine, build_tables(models, target.database))
    try:
        async with reached(target):
            migrator = migrator_of(engine, models, target.database, sources, written)
            if (await harmless_plan(migrator, target, models)).steps:
                await migrator.apply(Gate("LOW"))
            await check_live(store, target, models, of_all_tenants=of_all_tenants)
        yield store
    finally:
        await store.close()


def check_file(target: Target, models: Mapping[str, ModelShape]) -> None:
    """Raises `TablesError` DF602 where opening an SQLite file would leave an empty one behind; models whose tenants
    SQLite cannot keep apart are refused, too."""
    from runner.tenancy import refuse_sqlite

    if target.database == "sqlite" and any(model.is_row_secured for model in models.values()):
        raise refuse_sqlite()
    if target.is_missing_file and models and not target.creates_tables and target.file.parent.is_dir():
        raise TablesError(_tables_missing(list(models)))


async def harmless_plan(migrator: Migrator, target: Target, models: Mapping[str, ModelShape]) -> MigrationPlan:
    """What a run does to the tables first. Raises `TablesError` DF602 or DF603 when that is not its to do."""
    plan = await migrator.plan()
    if (plan.steps or plan.blocked) and not (target.creates_tables and plan.level == "LOW" and not plan.blocked):
        raise TablesError(_pending(plan, models))
    return plan


async def check_live(
    store: Store, target: Target, models: Mapping[str, ModelShape], *, of_all_tenants: bool = False
) -> None:
    """Make sure that changes of models with `audit_log` are recorded, and that tenants are kept apart.

    Raises `TablesError` DF640, and DF434 or DF435.
    """
    from runner.audit.triggers import track, untracked_models
    from runner.tenancy import refuse_bound, refuse_open

    async with store.session(writes=False) as session:
        if apart := [model.table for model in models.values() if model.is_row_secured]:
            await (refuse_bound if of_all_tenants else refuse_open)(session.connection, apart)
        untracked = await untracked_models(session.connection, models, store.tables)
    if untracked and not target.creates_tables:
        what = f"no trail is kept of the changes of {', '.join(untracked)}"
        why = "audit_log records by triggers, which are made when you say so"
        raise TablesError(Problem("DF640", what, None, why, "dfrun migrate apply, or migrate: auto in dfrun.yaml"))
    if untracked:
        async with store.session() as session:
            await track(session.connection, models, store.tables, untracked)


def migrator_of(
    engine: AsyncEngine,
    models: Mapping[str, ModelShape],
    database: Database,
    sources: Mapping[str, str] | None,
    written: Sequence[Written] = (),
) -> Migrator:
    """What compares these models with a database."""
    from runner.migrate.migrator import Migrator
    from runner.migrate.wanted import wanted_of

    return Migrator(engine, wanted_of(models, database, sources), written, keeps_tables=True)


def _pending(plan: MigrationPlan, models: Mapping[str, ModelShape]) -> list[Problem]:
    """What a run waits for: DF602 for all missing tables, DF603 for each other change, and what blocks the plan."""
    named = {model.table: name for name, model in models.items()}
    missing = [
        named.get(change.partition(":")[2], change) for change in plan.changes if change.startswith("create_table:")
    ]
    others = [(change, level) for change, level in plan.changes.items() if not change.startswith("create_table:")]
    problems = list(plan.blocked)
    if missing:
        problems.append(_tables_missing(missing))
    for change, level in others:
        op, _, subject = change.partition(":")
        what = f"{subject} is not as its model says: {op} is pending, {level}"
        why = next(part.says for step in plan.steps for part in step.parts if part.change == change)
        problems.append(Problem("DF603", what, None, why, "dfrun migrate plan shows it, dfrun migrate apply does it"))
    return problems


@asynccontextmanager
async def open_connection(target: Target) -> AsyncIterator[AsyncConnection]:
    """A connection for reading what dfrun keeps beside the models. Raises `UnreachableError` DF422."""
    from runner.dialects.session import open_engine

    if target.is_missing_file:
        raise UnreachableError(Problem("DF422", f"the database {target.shown} cannot be reached", None, "no such file"))
    engine = open_engine(target.url)
    try:
        async with reached(target), engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def _tables_missing(names: Sequence[str]) -> Problem:
    fix = "dfrun migrate apply, or migrate: auto in dfrun.yaml"
    why = "on a database of your own, tables are created when you say so"
    return Problem("DF602", f"tables are missing: {', '.join(names)}", None, why, fix)


async def pending_plan(
    target: Target, models: Mapping[str, ModelShape], sources: Mapping[str, str] | None = None,
    written: Sequence[Written] = (),
) -> MigrationPlan:  # fmt: skip
    """What would have to be done before a run; changes nothing. Raises `UnreachableError` DF422."""
    from runner.dialects.session import open_engine

    there = target.for_reading
    engine = open_engine(there.url)
    try:
        async with reached(there):
            return await migrator_of(engine, models, target.database, sources, written).plan()
    finally:
        await engine.dispose()


@asynccontextmanager
async def reached(target: Target) -> AsyncIterator[None]:
    """Whatever goes wrong inside is told as a database that cannot be reached."""
    import sqlite3

    from runner.dialects.errors import is_database_error, unreachable

    if target.url.startswith("sqlite:///") and not target.file.parent.is_dir():
        what = f"the database {target.shown} cannot be reached"
        fix = f"mkdir -p {target.file.parent}"
        raise UnreachableError(Problem("DF422", what, None, "there is no such folder", fix))
    try:
        if target.url.startswith("sqlite:///"):
            # a connect that fails inside aiosqlite leaves a thread that may outlive the loop it reports to
            sqlite3.connect(target.file).close()
        yield
    except Exception as error:
        if not isinstance(error, (OSError, TimeoutError)) and not is_database_error(error):
            raise
        await _threads_end()
        raise UnreachableError(unreachable(error, target.shown)) from error


async def _threads_end() -> None:
    """The thread of an SQLite connection that could not be opened answers once more, and the loop must be there."""
    import asyncio
    import threading

    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 1.0)
