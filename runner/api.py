"""The composition: each act of dfrun in a few lines."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runner.catalog import Catalog, build_catalog
from runner.declarations import kind_of, load_migration, load_models, load_pipeline, load_settings
from runner.errors import DefinitionError, Problem
from runner.loading import (
    STANDARD_INPUT,
    load,
    load_document,
    model_files,
    nearest,
    read,
    settings_of,
    shown,
    sources_of,
    written_files,
)
from runner.run.choices import Decisions, RunOptions
from schemas.settings import BackupByCommand, Webhook

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runner.migrate.commandbackup import BackupCommand
    from runner.migrate.migrator import Migrator
    from runner.migrate.plan import PlanFile
    from runner.run.executor import Executor
    from runner.run.results import RunResult
    from runner.sql.filters import Database
    from schemas.shapes import ModelShape

__all__ = [
    "STANDARD_INPUT", "Checked", "Decisions", "RunOptions", "check", "init", "lint_migrations", "load", "load_catalog",
    "migrating", "read_plan_file", "resume_run", "run_file", "settings_of", "shown", "small_table_rows", "undo_run",
    "yaml_files",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checked:
    """A file in which nothing is wrong: what it is, how many models or steps it has, and what is hardly meant."""

    path: Path
    kind: str
    size: int
    warnings: tuple[Problem, ...] = ()


def check(path: Path) -> list[Checked]:
    """Text, declarations, graph and types of a file, or of every YAML file of a folder; offline.

    In a folder, what is hidden is not looked at, and a file of another program (kind `other`) is passed over.
    Raises `DefinitionError` with the problems of all of them.
    """
    files = yaml_files(path)
    if not files:
        raise DefinitionError(Problem("DF101", f"{path}: there is no YAML file in this folder"))
    checked: list[Checked] = []
    problems: list[Problem] = []
    for file in files:
        try:
            checked.append(_check_file(file, in_folder=file != path))
        except DefinitionError as error:
            problems += error.problems
    if problems:
        raise DefinitionError(problems)
    return checked


def yaml_files(path: Path) -> list[Path]:
    """The YAML files of a folder, what is hidden left out; a file is its own."""
    if not path.is_dir():
        return [path]
    found = (file for ending in ("*.yaml", "*.yml") for file in path.rglob(ending))
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts))


def _check_file(path: Path, *, in_folder: bool) -> Checked:
    document = read(path)
    kind = kind_of(document)
    if kind == "models":
        models = load_models(document)
        build_catalog([(document, models)])
        return Checked(path, kind, len(models.models))
    if kind == "migration":
        return Checked(path, kind, len(load_migration(document).steps))
    if kind == "pipeline":
        graph = load_document(path, document).graph
        return Checked(path, kind, len(graph.steps), graph.warnings)
    if path.name == "dfrun.yaml":
        load_settings(document)
        return Checked(path, kind, len(document.root))
    if in_folder and not any(get_close_matches(key, ("models", "steps", "tests")) for key in document.root):
        return Checked(path, "other", 0)
    what = "this file is neither models nor a pipeline"
    why = "a file says what it is by its top-level keys: `models:` with the models, or `steps:`"
    raise DefinitionError(Problem("DF110", what, document.place(()), why))


def init(folder: Path) -> list[Path]:
    """Write a starter project into `folder`; gives its files. Raises `DefinitionError` DF410 rather than overwrite."""
    from importlib.resources import files

    starter = files("runner").joinpath("starter")
    targets = {"models.yaml": folder / "models.yaml", "orders.yaml": folder / "pipelines" / "orders.yaml",
               "orders.csv": folder / "pipelines" / "orders.csv"}  # fmt: skip
    for target in targets.values():
        if target.exists():
            problem = Problem(
                "DF410", f"{shown(target)} is there already", None, "", "name an empty folder: dfrun init DIR"
            )
            raise DefinitionError(problem)
    for name, target in targets.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(starter.joinpath(name).read_bytes())
        except OSError as error:
            what = f"{shown(target)} cannot be written: {error.strerror}"
            raise DefinitionError(Problem("DF505", what, None, "", "name another folder: dfrun init DIR")) from None
    return list(targets.values())


def load_catalog(path: Path) -> Catalog:
    """The models of a file of models, of a pipeline, or the nearest `models.yaml` upward from a folder."""
    if path.is_dir():
        found = nearest(path.resolve(), "models.yaml")
        documents = [read(found)] if found else []
    else:
        document = read(path)
        if kind_of(document) == "models":
            documents = [document]
        else:
            files = model_files(path.resolve().parent, load_pipeline(document), document)
            documents = [read(file) for file in files]
    is_secured = settings_of(_folder(path))[0].tenancy == "database"
    return build_catalog([(each, load_models(each)) for each in documents], row_security=is_secured)


async def _told(work: Awaitable[RunResult]) -> RunResult:
    """The result; what a database refuses before the first step is told as a problem: 75 where trying again may help,
    else 69."""
    from runner.dialects.errors import is_database_error, step_error
    from runner.errors import DfrunError, UnreachableError

    try:
        return await work
    except DfrunError:
        raise
    except Exception as error:
        if not is_database_error(error):
            raise
        refused = step_error(error, {})
        told = UnreachableError(refused.problem)
        if refused.error_class == "transient":
            told.exit_code = 75
        raise told from error


async def run_file(
    path: Path, options: RunOptions, started: Callable[[Executor], None] = lambda executor: None
) -> RunResult:
    """Check a pipeline and run it; the result says how each step ended.

    started: gets the executor before the first step, so that signals can reach it.
    Raises `DefinitionError` (nothing ran), `UnreachableError`, `TablesError`, `GateError`.
    """
    return await _told(_run_or_fire(path, options, started))


async def _run_or_fire(path: Path, options: RunOptions, started: Callable[[Executor], None]) -> RunResult:
    from runner.run.launch import prepare, start
    from runner.run.results import RunResult

    loaded = load(path)
    if options.due:
        from runner.run.firing import fire

        return await fire(loaded, options, started)
    result = await start(prepare(loaded, options), started)
    assert isinstance(result, RunResult), "only a slot has a run already"
    return result


async def resume_run(
    run_id: str, options: RunOptions, decisions: Decisions, started: Callable[[Executor], None] = lambda executor: None
) -> RunResult:
    """Go on with a run that was interrupted or has failed: what is recorded does not run again.

    Raises `DefinitionError`, `UnreachableError`, `TablesError`, `GateError`; nothing has run then.
    """
    from runner.run.launch import resume

    return await _told(resume(run_id, options, decisions, started))


async def undo_run(
    run_id: str, options: RunOptions, started: Callable[[Executor], None] = lambda executor: None
) -> RunResult:
    """Take a run back: the undo of each of its steps that has one, the last one first.

    Raises `DefinitionError`, `UnreachableError`, `TablesError`, `GateError`; nothing has run then.
    """
    from runner.run.launch import undo

    return await _told(undo(run_id, options, started))


@asynccontextmanager
async def migrating(
    path: Path, database: str | None, environment: str | None, on_step: Callable[[str], None] = lambda line: None, *,
    only_looks: bool = False,
) -> AsyncIterator[Migrator]:  # fmt: skip
    """A migrator for the models of a pipeline, of a file of models, or of a folder.

    only_looks: nothing is changed, and no SQLite file comes to be where there is none.

    Raises `DefinitionError`, `UnreachableError`.
    """
    from sqlalchemy.pool import NullPool

    from runner.database import choose_database, reached
    from runner.dialects.session import open_engine
    from runner.migrate.apply import Limits
    from runner.migrate.migrator import Migrator
    from runner.migrate.wanted import wanted_of
    from runner.tenancy import refuse_sqlite

    settings, project = settings_of(_folder(path))
    catalog = load_catalog(path)
    own = settings.migrations
    if own.database is not None and database is None:
        settings = settings.model_copy(update={"database": own.database})
    target = choose_database(database, settings, environment, project)
    target = target.for_reading if only_looks else target
    if target.database == "sqlite" and any(model.is_row_secured for model in catalog.models.values()):
        raise refuse_sqlite()
    wanted = wanted_of(catalog.models, target.database, sources_of(catalog, project))
    engine = open_engine(target.url, poolclass=NullPool)
    try:
        async with reached(target):
            limits = Limits(tries=own.lock_tries, total_seconds=own.timeout.total_seconds())
            yield Migrator(
                engine, wanted, written_files(project), limits, on_step,
                slow_threshold_ms=round(own.slow_threshold.total_seconds() * 1000),
                max_backup_rows=own.max_backup_rows, webhook=_webhook(own.webhook),
                backup=_backup(own.backup, project),
                settle=partial(_settle, catalog.models, target.database),
            )  # fmt: skip
    finally:
        await engine.dispose()


async def _settle(models: Mapping[str, ModelShape], database: Database, connection: AsyncConnection) -> None:
    """Make what runs need beside the tables: triggers of models with `audit_log` that are missing or old, and on a
    server, where a run's role may create nothing, the tables of dfrun's own."""
    from runner.audit.triggers import track, untracked_models
    from runner.encryption.datakeys import METADATA as KEYS
    from runner.ledger.tables import create_ledger
    from runner.sql.tables import build_tables

    tables = build_tables(models, database)
    await track(connection, models, tables, await untracked_models(connection, models, tables))
    if database == "postgresql":
        await create_ledger(connection)
        if any(model.is_encrypted for model in models.values()):
            await connection.run_sync(KEYS.create_all)


def small_table_rows(path: Path) -> int:
    """What `dfrun.yaml` says about small tables."""
    return settings_of(_folder(path))[0].migrations.small_table_rows


def lint_migrations(folder: Path) -> list[Problem]:
    """A problem (DF626) for each statement of `migrations/*.yaml` that holds locks for long or loses something."""
    from runner.migrate.lint import lint

    _, project = settings_of(_folder(folder))
    found: list[Problem] = []
    for file in sorted((project / "migrations").glob("*.yaml")):
        document = read(file)
        if kind_of(document) == "migration":
            found += lint(load_migration(document), document)
    return found


def _backup(declared: BackupByCommand | None, project: Path) -> BackupCommand | None:
    from runner.migrate.commandbackup import BackupCommand

    if declared is None:
        return None
    seconds = declared.timeout.total_seconds()
    return BackupCommand(declared.command, project, project / declared.folder, seconds)


def _webhook(webhook: Webhook | None) -> str | None:
    """The address that is told. Raises `DefinitionError` DF627 unless its host is allowed."""
    if webhook is None:
        return None
    from urllib.parse import urlsplit

    url = webhook.url if isinstance(webhook.url, str) else os.environ.get(webhook.url.env, "")
    parts = urlsplit(url)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.hostname not in webhook.hosts or not (parts.scheme == "https" or (parts.scheme == "http" and is_local)):
        why = "only an https address of a host under hosts: is told"
        fix = f"hosts: [{parts.hostname or 'hooks.example.org'}]"
        raise DefinitionError(Problem("DF627", "migrations.webhook: this address may not be told", None, why, fix))
    return url


def _folder(path: Path) -> Path:
    return path.resolve() if path.is_dir() else path.resolve().parent


def read_plan_file(path: Path) -> PlanFile | None:
    """The migration plan of a file; None where the path is something else. Raises `DefinitionError` DF612."""
    if not path.is_file() or b"dfrun_plan:" not in path.read_bytes()[:200]:
        return None
    from runner.migrate.plan import read_plan

    return read_plan(read(path))
