"""The composition: each act of dfrun in a few lines."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runner.catalog import Catalog, build_catalog
from runner.declarations import kind_of, load_migration, load_models, load_pipeline, load_settings
from runner.errors import DefinitionError, Problem
from runner.graph import Graph, Parts, build_graph
from runner.source import Document, parse_document, read_document
from runner.tenants import actor_of, check_tenant, choose_tenant, refuse_without
from schemas.pipeline import Pipeline
from schemas.settings import Settings, Webhook

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runner.dialects.session import Store
    from runner.events import Event
    from runner.filters import Database
    from runner.migrate.migrator import Migrator
    from runner.migrate.plan import PlanFile
    from runner.migrate.written import Written
    from runner.run import Executor, RunResult
    from schemas.shapes import ModelShape

STANDARD_INPUT = Path("-")


@dataclass(frozen=True, slots=True)
class Checked:
    """A file in which nothing is wrong: what it is, how many models or steps it has, and what is hardly meant."""

    path: Path
    kind: str
    size: int
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pipeline that was read and checked. `home` is its folder, where relative paths start; `project` is the folder
    of `dfrun.yaml` or `models.yaml`, else `home`. `identity` is a hash of the definition and its models."""

    document: Document
    pipeline: Pipeline
    catalog: Catalog
    graph: Graph
    home: Path
    project: Path
    settings: Settings
    identity: str


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a pipeline is to be run; everything as the user gave it."""

    parameters: Sequence[str] = ()
    parameters_file: Path | None = None
    database: str | None = None
    environment: str | None = None
    only: Sequence[str] = ()
    run_id: str | None = None
    tenant: str | None = None
    emit: Callable[[Event], None] = field(default=lambda event: None)


def check(path: Path) -> list[Checked]:
    """Text, declarations, graph and types of a file, or of every YAML file of a folder; offline.

    In a folder, what is hidden is not looked at, and a file of another program (kind `other`) is passed over.
    Raises `DefinitionError` with the problems of all of them.
    """
    files = _yaml_files(path) if path.is_dir() else [path]
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


def _yaml_files(folder: Path) -> list[Path]:
    found = (file for ending in ("*.yaml", "*.yml") for file in folder.rglob(ending))
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _check_file(path: Path, *, in_folder: bool) -> Checked:
    document = _read(path)
    kind = kind_of(document)
    if kind == "models":
        models = load_models(document)
        build_catalog([(document, models)])
        return Checked(path, kind, len(models.models))
    if kind == "migration":
        return Checked(path, kind, len(load_migration(document).steps))
    if kind == "pipeline":
        graph = _load(path, document).graph
        return Checked(path, kind, len(graph.steps), graph.warnings)
    if path.name == "dfrun.yaml":
        load_settings(document)
        return Checked(path, kind, len(document.root))
    if in_folder and not any(get_close_matches(key, ("models", "steps", "tests")) for key in document.root):
        return Checked(path, "other", 0)
    what = "this file is neither models nor a pipeline"
    why = "a file says what it is by its top-level keys: `models:` with the models, or `steps:`"
    raise DefinitionError(Problem("DF110", what, document.place(()), why))


def load(path: Path) -> Loaded:
    """A pipeline, read and checked. Raises `DefinitionError` with all problems of the first file that has some."""
    document = _read(path)
    if kind_of(document) != "pipeline":
        what = "this file is not a pipeline"
        raise DefinitionError(Problem("DF110", what, document.place(()), "a pipeline has `steps:` at its top level"))
    return _load(path, document)


def _load(path: Path, document: Document) -> Loaded:
    pipeline = load_pipeline(document)
    home = Path.cwd() if path == STANDARD_INPUT else path.resolve().parent
    files = _model_files(home, pipeline, document)
    documents = [_read(file) for file in files]
    catalog = build_catalog([(models, load_models(models)) for models in documents])
    settings, project = settings_of(home)
    texts = [document.text, *(d.text for d in documents)]

    def other(folder: Path, name: str) -> Parts:
        file = folder / name
        if not file.is_file():
            raise DefinitionError(Problem("DF101", f"there is no file {name!r}", None, "", "check the path"))
        inner = _read(file.resolve())
        if kind_of(inner) != "pipeline":
            raise DefinitionError(Problem("DF110", f"{name} is not a pipeline", inner.place(())))
        declared = load_pipeline(inner)
        theirs = [_read(each) for each in _model_files(file.resolve().parent, declared, inner)]
        texts.extend([inner.text, *(d.text for d in theirs)])
        models = build_catalog([(each, load_models(each)) for each in theirs])
        return inner, declared, models, file.resolve().parent

    graph = build_graph(document, pipeline, catalog, home, other)
    if wrong := check_tenant(pipeline, document):
        raise DefinitionError(wrong)
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return Loaded(document, pipeline, catalog, graph, home, project, settings, digest.hexdigest())


def settings_of(folder: Path) -> tuple[Settings, Path]:
    """The nearest `dfrun.yaml` upward, and the project's folder: that of `dfrun.yaml` or `models.yaml`, else the
    given one."""
    file = _upward(folder.resolve(), "dfrun.yaml")
    settings = load_settings(_read(file)) if file else Settings()
    home = next((f.parent for f in (file, _upward(folder.resolve(), "models.yaml")) if f), folder.resolve())
    return settings, home


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
        found = _upward(path.resolve(), "models.yaml")
        return _catalog([found] if found else [])
    document = _read(path)
    if kind_of(document) == "models":
        return build_catalog([(document, load_models(document))])
    return _catalog(_model_files(path.resolve().parent, load_pipeline(document), document))


def _model_files(home: Path, pipeline: Pipeline, document: Document) -> list[Path]:
    """Those files of models that a pipeline names, else the nearest `models.yaml` upward; none where there is none."""
    if not pipeline.models:
        found = _upward(home, "models.yaml")
        return [found] if found else []
    named = [home / name for name in pipeline.models]
    for file in named:
        if not file.is_file():
            what = f"there is no file {shown(file)!r}"
            raise DefinitionError(Problem("DF101", what, document.place(("models",)), "", "check the path"))
    return named


def _catalog(files: Sequence[Path]) -> Catalog:
    documents = [_read(file) for file in files]
    return build_catalog([(document, load_models(document)) for document in documents])


def _upward(folder: Path, name: str) -> Path | None:
    return next((f for f in (p / name for p in (folder, *folder.parents)) if f.is_file()), None)


def _read(path: Path) -> Document:
    if path == STANDARD_INPUT:
        return parse_document(sys.stdin.buffer.read(), "-")
    return read_document(path, shown(path))


def shown(path: Path) -> str:
    """The path as messages show it: relative to where the user stands, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


async def run_file(
    path: Path, options: RunOptions, started: Callable[[Executor], None] = lambda executor: None
) -> RunResult:
    """Check a pipeline and run it; the result says how each step ended.

    started: gets the executor before the first step, so that signals can reach it.
    Raises `DefinitionError` (nothing ran), `UnreachableError`, `TablesError`.
    """
    from runner.identity import check_run_id, new_run_id
    from runner.parameters import read_parameters, read_secrets
    from runner.plan import build_plan

    loaded = load(path)
    lacking = [replace(warning, severity="error") for warning in loaded.graph.warnings if warning.code == "DF424"]
    if lacking:
        raise DefinitionError(lacking)
    plan = build_plan(loaded.graph, loaded.identity, options.only)
    file = _read(options.parameters_file) if options.parameters_file else None
    values = read_parameters(loaded.pipeline, options.parameters, file, loaded.document)
    run_id = check_run_id(options.run_id) if options.run_id else new_run_id()
    secrets = read_secrets(loaded.graph.secrets, loaded.project)
    now = datetime.now(UTC)
    tenant = choose_tenant(loaded.pipeline, loaded.document, options.tenant, values, os.environ)
    refuse_without(tenant, plan)
    run = {"id": run_id, "pipeline": plan.name, "scheduled_at": now, "scheduled_date": now.date(), "tenant": tenant}

    from runner.run import Executor

    async def go(store: Store | None) -> RunResult:
        roots = {"params": values, "secrets": secrets, "run": run}
        executor = Executor(plan, store, roots, run_id, now, loaded.home, options.emit, loaded.settings.parallel)
        executor.tenant, executor.actor = tenant, actor_of(os.environ)
        started(executor)
        return await executor.run()

    from runner.database import choose_database, open_store

    target = choose_database(options.database, loaded.settings, options.environment, loaded.project)
    if not plan.uses_database:
        return await go(None)
    sources, written = _sources(loaded.catalog, loaded.project), written_files(loaded.project)
    async with open_store(target, loaded.graph.models, loaded.settings.parallel, sources, written) as store:
        return await go(store)


@asynccontextmanager
async def migrating(
    path: Path, database: str | None, environment: str | None, on_step: Callable[[str], None] = lambda line: None
) -> AsyncIterator[Migrator]:
    """A migrator for the models of a pipeline, of a file of models, or of a folder.

    Raises `DefinitionError`, `UnreachableError`.
    """
    from sqlalchemy.pool import NullPool

    from runner.database import choose_database, reached
    from runner.dialects.session import open_engine
    from runner.migrate.apply import Limits
    from runner.migrate.migrator import Migrator
    from runner.migrate.wanted import wanted_of

    settings, project = settings_of(_folder(path))
    catalog = load_catalog(path)
    own = settings.migrations
    if own.database is not None and database is None:
        settings = settings.model_copy(update={"database": own.database})
    target = choose_database(database, settings, environment, project)
    wanted = wanted_of(catalog.models, target.database, _sources(catalog, project))
    engine = open_engine(target.url, poolclass=NullPool)
    try:
        async with reached(target):
            limits = Limits(tries=own.lock_tries, total_seconds=own.timeout.total_seconds())
            yield Migrator(
                engine, wanted, written_files(project), limits, on_step,
                slow_threshold_ms=round(own.slow_threshold.total_seconds() * 1000),
                max_backup_rows=own.max_backup_rows, webhook=_webhook(own.webhook),
                settle=partial(_track, catalog.models, target.database),
            )  # fmt: skip
    finally:
        await engine.dispose()


async def _track(models: Mapping[str, ModelShape], database: Database, connection: AsyncConnection) -> None:
    """Make the triggers of models with `audit_log` that are missing or old."""
    from runner.audit.triggers import track, untracked_models
    from runner.tables import build_tables

    tables = build_tables(models, database)
    await track(connection, models, tables, await untracked_models(connection, models, tables))


def small_table_rows(path: Path) -> int:
    """What `dfrun.yaml` says about small tables."""
    return settings_of(_folder(path))[0].migrations.small_table_rows


def written_files(project: Path) -> list[Written]:
    """The hand-written migrations of a project, in the order of their files' names."""
    files = sorted((project / "migrations").glob("*.yaml"))
    if not files:
        return []
    from runner.migrate.written import written_of

    documents = [_read(file) for file in files]
    return [written_of(load_migration(d), d.text) for d in documents if kind_of(d) == "migration"]


def lint_migrations(folder: Path) -> list[Problem]:
    """A problem (DF626) for each statement of `migrations/*.yaml` that holds locks for long or loses something."""
    from runner.migrate.lint import lint

    _, project = settings_of(_folder(folder))
    found: list[Problem] = []
    for file in sorted((project / "migrations").glob("*.yaml")):
        document = _read(file)
        if kind_of(document) == "migration":
            found += lint(load_migration(document), document)
    return found


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


def _sources(catalog: Catalog, project: Path) -> dict[str, str]:
    """The file of each model, by its path in the project."""
    files = {model: place.file for (model, _), place in catalog.places.items()}
    return {model: os.path.relpath(file, project) for model, file in files.items()}


def read_plan_file(path: Path) -> PlanFile | None:
    """The migration plan of a file; None where the path is something else. Raises `DefinitionError` DF612."""
    if not path.is_file() or b"dfrun_plan:" not in path.read_bytes()[:200]:
        return None
    from runner.migrate.plan import read_plan

    return read_plan(_read(path))
