"""The verbs of `dfrun migrate`: read options, call the migrator, print, choose the exit status."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli.options import FILE, database_options

if TYPE_CHECKING:
    from runner.migrate.migrator import Migrator, Outcome
    from runner.migrate.plan import MigrationPlan

T = TypeVar("T")
_LEVELS = click.Choice(["LOW", "MEDIUM", "HIGH"], case_sensitive=False)


@click.group()
def migrate() -> None:
    """The tables of the models in a live database: see the difference, apply it, take it back."""


def _go(
    path: Path, database: str | None, environment: str | None, act: Callable[[Migrator], Awaitable[T]],
    on_step: Callable[[str], None] = lambda line: None, *, only_looks: bool = False,
) -> T:  # fmt: skip
    """Run an act on the database that is meant."""
    from runner import api

    async def work() -> T:
        async with api.migrating(path, database, environment, on_step, only_looks=only_looks) as migrator:
            return await act(migrator)

    import asyncio

    return asyncio.run(work())


def _look(path: Path, database: str | None, environment: str | None, act: Callable[[Migrator], Awaitable[T]]) -> T:
    """Run an act that changes nothing."""
    return _go(path, database, environment, act, only_looks=True)


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option(
    "-o", "--output", type=click.Choice(["table", "yaml", "json", "sql", "md"]), default="table", show_default=True
)
@click.option("--allow", multiple=True, metavar="CHANGE", help="accept a HIGH change, such as drop_column:customer.fax")
@click.option("--check", "--exit-code", "is_check", is_flag=True, help="exit with 6 when changes are pending")
def plan(
    path: Path, database: str | None, environment: str | None, output: str, allow: tuple[str, ...], is_check: bool
) -> None:
    """What `apply` would do: steps, risks, locks, SQL. Changes nothing; the yaml form is a plan file for `apply`."""
    from runner.migrate import report
    from runner.migrate.gate import read_allow

    found = _look(path, database, environment, lambda migrator: migrator.plan(read_allow(allow)))
    texts = {"table": report.plan_text, "yaml": lambda p: p.file().rstrip(), "json": report.plan_json,
             "sql": report.plan_sql, "md": report.plan_markdown}  # fmt: skip
    text = texts[output](found)
    if text:
        click.echo(text)
    if found.blocked:
        _tell(found)
        sys.exit(3)
    sys.exit(6 if is_check and found.steps else 0)


def _tell(found: MigrationPlan) -> None:
    from runner.report import problems_text

    click.echo(problems_text(found.blocked, lambda file: []), err=True)


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option("-y", "--yes", is_flag=True, help="do not ask; HIGH changes must be allowed by name all the same")
@click.option("--max-risk", type=_LEVELS, default="MEDIUM", show_default=True, help="the most that may run")
@click.option("--allow", multiple=True, metavar="CHANGE", help="accept a HIGH change, such as drop_column:customer.fax")
@click.option("--models", type=FILE, metavar="PATH", help="the models, where PATH is a plan file")
@click.option("--until", type=click.Choice(["expand", "backfill"]), help="stop after this phase; resume goes on")
@click.option("--priority", type=int, default=0, show_default=True, help="the place in the queue for the lock")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def apply(
    path: Path, database: str | None, environment: str | None, yes: bool, max_risk: str, allow: tuple[str, ...],
    models: Path | None, until: Any, priority: int, output: str,
) -> None:  # fmt: skip
    """Bring the tables to what the models say: of a pipeline, a file of models, this folder, or a reviewed plan file.

    On a terminal it shows the plan and asks; elsewhere it applies what --max-risk lets pass.
    """
    from runner import api
    from runner.migrate.gate import Gate, read_allow
    from runner.migrate.risks import LEVELS

    file = api.read_plan_file(path)
    level = next(name for name in LEVELS if name == max_risk.upper())
    gate = Gate(level, read_allow(allow))
    confirm = None if yes or output == "json" or not sys.stdin.isatty() else _confirm

    async def act(migrator: Migrator) -> Outcome:
        return await migrator.apply(gate, file=file, confirm=confirm, until=until, priority=priority)

    where = models or (path.resolve().parent if file else path)
    done = _go(where, database, environment, act, _line if output == "text" else lambda line: None)
    _show(done, output)


def _line(text: str) -> None:
    click.echo(text)


def _confirm(found: MigrationPlan) -> frozenset[str] | None:
    """Show the plan, ask for the table of each HIGH change, and for all of it; the default is no."""
    from runner.migrate import report

    click.echo(report.plan_text(found))
    said: set[str] = set()
    for change, level in found.changes.items():
        if level != "HIGH" or change in found.allow:
            continue
        table = change.partition(":")[2].partition(".")[0]
        if click.prompt(f"{change} is HIGH; type {table} to allow it", default="", show_default=False) != table:
            return None
        said.add(change)
    return frozenset(said) if click.confirm("apply this plan?", default=False) else None


def _show(done: Outcome, output: str) -> None:
    from runner.migrate import report

    record = {"status": done.status, "migration": done.migration, "plan": done.plan.hash, "risk": done.plan.level,
              "steps": len(done.plan.steps), "duration_ms": done.duration_ms, "lock_wait_ms": done.lock_wait_ms,
              "retries": done.retries, "backup": str(done.file_backup) if done.file_backup else None}  # fmt: skip
    if output == "json":
        click.echo(report.to_json(record))
    elif done.status == "nothing":
        click.echo(report.UP_TO_DATE)
    elif done.status == "declined":
        click.echo("nothing was changed", err=True)
    else:
        count = len(done.plan.changes)
        size = f"{count} change{'' if count == 1 else 's'}"
        end = "; dfrun migrate resume does the rest" if done.status == "partial" else ""
        click.echo(f"{done.status} migration {done.migration}: {size}, {done.plan.level}{end}")
        if done.file_backup:
            from runner import api

            click.echo(f"the file as it was before: {api.shown(done.file_backup)}")
    sys.exit(3 if done.status == "declined" else 0)


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--check", "--exit-code", "is_check", is_flag=True, help="exit with 6 when changes are pending")
def status(path: Path, database: str | None, environment: str | None, output: str, is_check: bool) -> None:
    """Where the database stands: the last migration, what is pending, who holds the lock and who waits for it."""
    from runner.migrate import report

    found = _look(path, database, environment, lambda migrator: migrator.status())
    click.echo(report.status_json(found) if output == "json" else report.status_text(found))
    sys.exit(6 if is_check and (found.pending.steps or found.unfinished) else 0)


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def history(path: Path, database: str | None, environment: str | None, output: str) -> None:
    """Every migration of this database, and what they add up to."""
    from runner.migrate import report

    migrations, metrics = _look(path, database, environment, lambda migrator: migrator.history())
    if output == "json":
        rows = [report.migration_record(m) for m in migrations]
        click.echo(report.to_json({"migrations": rows, "metrics": metrics}))
    else:
        click.echo(report.history_text(migrations, metrics))


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def resume(path: Path, database: str | None, environment: str | None, output: str) -> None:
    """Go on with a migration that was stopped: by a failure, a lost connection, or --until."""
    done = _go(
        path,
        database,
        environment,
        lambda migrator: migrator.resume(),
        _line if output == "text" else lambda line: None,
    )
    _show(done, output)


@migrate.command()
@click.argument("number", type=int, required=False)
@click.option("--path", type=FILE, default=Path(), metavar="PATH", help="the models, or a folder in a project")
@database_options
@click.option("--plan", "is_plan", is_flag=True, help="show what it would do and lose; change nothing")
@click.option("-y", "--yes", is_flag=True, help="do not ask; HIGH changes must be allowed by name all the same")
@click.option("--max-risk", type=_LEVELS, default="MEDIUM", show_default=True, help="the most that may run")
@click.option("--allow", multiple=True, metavar="CHANGE", help="accept a HIGH change, such as drop_column:order.paid")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rollback(
    number: int | None, path: Path, database: str | None, environment: str | None, is_plan: bool, yes: bool,
    max_risk: str, allow: tuple[str, ...], output: str,
) -> None:  # fmt: skip
    """Take migration NUMBER back (the last one without it), and all after it, computed from the live tables."""
    from runner.migrate import report
    from runner.migrate.gate import Gate, read_allow
    from runner.migrate.risks import LEVELS

    allowed = read_allow(allow)
    if is_plan:
        found = _look(path, database, environment, lambda migrator: migrator.plan_rollback(number, allowed))
        click.echo(report.rollback_json(found) if output == "json" else report.rollback_text(found))
        if found.plan.blocked:
            _tell(found.plan)
            sys.exit(3)
        return
    level = next(name for name in LEVELS if name == max_risk.upper())
    confirm = None if yes or output == "json" or not sys.stdin.isatty() else _confirm

    async def act(migrator: Migrator) -> Outcome:
        return await migrator.rollback(Gate(level, allowed), number, confirm=confirm)

    _show(_go(path, database, environment, act, _line if output == "text" else lambda line: None), output)


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--check", "--exit-code", "is_check", is_flag=True, help="exit with 6 when something differs")
def drift(path: Path, database: str | None, environment: str | None, output: str, is_check: bool) -> None:
    """What was changed by hand since the last migration, what is pending, and tables that are none of dfrun's."""
    from runner.migrate import report

    found = _look(path, database, environment, lambda migrator: migrator.drift())
    click.echo(report.to_json(found) if output == "json" else report.drift_text(found))
    sys.exit(6 if is_check and (found.by_hand or found.pending) else 0)


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option("--older-than", default="30d", show_default=True, metavar="DURATION", help="spare what is younger")
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def purge(path: Path, database: str | None, environment: str | None, older_than: str, yes: bool, output: str) -> None:
    """Drop for good what migrations put into the trash; without --yes it shows the list, and asks on a terminal."""
    from datetime import timedelta

    from runner.errors import DefinitionError, Problem
    from runner.migrate import report
    from schemas.base import parse_duration

    try:
        age = timedelta(0) if older_than in ("0", "0d", "0s") else parse_duration(older_than)
    except ValueError as error:
        raise DefinitionError(Problem("DF625", f"--older-than: {error}", None, "", "--older-than 30d")) from None
    kept = _look(path, database, environment, lambda migrator: migrator.kept(age))
    if output == "text":
        click.echo(report.kept_text(kept))
    if kept and not yes and sys.stdin.isatty() and output == "text":
        yes = click.confirm("drop these for good?", default=False)
    if kept and yes:
        kept = _go(path, database, environment, lambda migrator: migrator.purge(age))
    if output == "json":
        click.echo(report.to_json({"purged": bool(kept and yes), "kept": kept}))
    elif kept:
        click.echo(f"purged {len(kept)}" if yes else "nothing was dropped: --yes drops them")


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
def baseline(path: Path, database: str | None, environment: str | None) -> None:
    """Take over tables that dfrun did not make, as they are; the next plan shows how they differ from the models."""
    number = _go(path, database, environment, lambda migrator: migrator.baseline())
    click.echo("nothing to take over" if number is None else f"took the tables over: migration {number}")


@migrate.command()
@click.argument("folder", type=FILE, default=Path())
@click.option("-o", "--output", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
def lint(folder: Path, output: str) -> None:
    """Look through the SQL of migrations/*.yaml for locks that last and data that is lost; offline."""
    from runner import api, report

    found = api.lint_migrations(folder)
    texts = {"text": lambda p: report.problems_text(p, report.lines_of), "json": report.problems_json,
             "github": report.problems_github}  # fmt: skip
    if found or output == "json":
        click.echo(texts[output](found), err=output == "text")
    elif output == "text":
        click.echo("nothing to tell")
    sys.exit(2 if found else 0)


@migrate.command()
@click.argument("path", type=FILE, default=Path())
@database_options
@click.option("--sql", "form", flag_value="sql", default=True, help="a script for psql or sqlite3")
@click.option("--alembic", "form", flag_value="alembic", help="an Alembic revision")
@click.option("--down-revision", metavar="ID", help="the revision before it")
@click.option("--message", default="dfrun", show_default=True, help="the first line of the revision")
def export(
    path: Path, database: str | None, environment: str | None, form: str, down_revision: str | None, message: str
) -> None:
    """Print what is pending for other tools to apply."""
    from runner.migrate.export import alembic_revision
    from runner.migrate.report import plan_sql

    found = _look(path, database, environment, lambda migrator: migrator.plan())
    click.echo(alembic_revision(found, message, down_revision) if form == "alembic" else plan_sql(found))
    if found.blocked:
        _tell(found)
        sys.exit(3)


@migrate.command("prune-hints")
@click.argument("path", type=FILE, default=Path())
@database_options
def prune_hints(path: Path, database: str | None, environment: str | None) -> None:
    """List the `renamed_from` hints that this database needs no more; remove one when no environment needs it."""
    for line in _look(path, database, environment, lambda migrator: migrator.spent_hints()):
        click.echo(line)
