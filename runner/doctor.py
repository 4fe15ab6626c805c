"""Looks at the surroundings: versions, the project found, the database reached, its tables. Changes nothing."""

from __future__ import annotations

import platform
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runner.errors import DfrunError

PACKAGES = ("pydantic", "sqlalchemy", "networkx", "pyyaml", "asyncpg", "aiosqlite", "click", "rich", "regex")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `is_fine` is None where it is for information."""

    subject: str
    text: str
    is_fine: bool | None = True


async def examine(folder: Path, database: str | None, environment: str | None) -> list[Finding]:
    """All findings, in order. Never raises for what is wrong with the surroundings."""
    findings = [Finding("python", f"{platform.python_version()} ({sys.executable})", sys.version_info >= (3, 11))]
    findings += _packages()
    findings += [finding async for finding in _project(folder, database, environment)]
    return findings


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "is not installed", False)


async def _project(folder: Path, database: str | None, environment: str | None) -> AsyncIterator[Finding]:
    from runner import api
    from runner.database import choose_database, pending_plan
    from runner.loading import sources_of, written_files

    try:
        settings, project = api.settings_of(folder)
        catalog = api.load_catalog(folder)
    except DfrunError as error:
        yield Finding("project", error.problems[0].what, False)
        return
    found = f"{len(catalog.models)} models" if catalog.models else "no models.yaml here or above"
    yield Finding("project", f"{project}: {found}", True if catalog.models else None)
    try:
        target = choose_database(database, settings, environment, project)
        text = f"{target.shown} (from {target.source})"
        if target.is_missing_file:
            yield Finding("database", f"{text}: not there yet, the first run creates it", None)
            return
        sources, written = sources_of(catalog, project), written_files(project)
        plan = await pending_plan(target, catalog.models, sources, written)
    except DfrunError as error:
        problem = error.problems[0]
        yield Finding("database", f"{problem.what}: {problem.why}" if problem.why else problem.what, False)
        return
    yield Finding("database", f"{text}: reached")
    for change, level in plan.changes.items():
        op, _, subject = change.partition(":")
        yield Finding("tables", f"{op} {subject} is pending ({level}); dfrun migrate apply does it", None)
    for blocked in plan.blocked:
        yield Finding("tables", blocked.what, False)
    for line in plan.drifted:
        yield Finding("tables", line, None)
    if not plan.steps and not plan.blocked and not plan.drifted:
        yield Finding("tables", "as the models say")
