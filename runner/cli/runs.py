"""The verbs of `dfrun runs`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from runner.cli.options import database_options

if TYPE_CHECKING:
    from runner.dialects.store import Store


@click.group()
def runs() -> None:
    """The runs that are recorded in a database."""


_RECORD_FORM = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)  # fmt: skip


def _with_ledger(database: str | None, environment: str | None, work: Callable[[Store], Awaitable[str]]) -> None:
    """Print what `work` says about the ledger."""
    import asyncio

    from runner.run.launch import open_ledger

    async def go() -> str:
        async with open_ledger(database, environment) as store:
            return await work(store)

    click.echo(asyncio.run(go()))


@runs.command("list")
@click.option("--pipeline", metavar="NAME", help="only the runs of this pipeline")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="at most so many")
@database_options
@_RECORD_FORM
def list_(pipeline: str | None, limit: int, database: str | None, environment: str | None, output: str) -> None:
    """The latest runs, newest first; those to resume with the command that does it."""

    async def work(store: Store) -> str:
        import json

        from runner.history import runs_record, runs_text
        from runner.ledger.runs import list_runs

        found = await list_runs(store, pipeline, limit)
        return json.dumps([runs_record(run) for run in found], indent=2) if output == "json" else runs_text(found)

    _with_ledger(database, environment, work)


@runs.command()
@click.argument("run_id", metavar="RUN")
@click.option("--why", metavar="STEP", help="why this step ran, was skipped, waits or failed")
@database_options
@_RECORD_FORM
def show(run_id: str, why: str | None, database: str | None, environment: str | None, output: str) -> None:
    """One run with its steps, their failed attempts, and how it ended."""

    async def work(store: Store) -> str:
        import json

        from runner.history import history_record, history_text, read_history, why_text

        history = await read_history(store, run_id)
        if why is not None:
            return why_text(history, why)
        return json.dumps(history_record(history), indent=2) if output == "json" else history_text(history)

    _with_ledger(database, environment, work)


@runs.command()
@click.argument("run_id", metavar="RUN")
@database_options
def cancel(run_id: str, database: str | None, environment: str | None) -> None:
    """Ask a run to stop; one that nobody runs any more is marked as cancelled."""

    async def work(store: Store) -> str:
        from runner.ledger.runs import cancel_run

        return await cancel_run(store, run_id)

    _with_ledger(database, environment, work)


@runs.command()
@click.option("--older-than", metavar="TIME", default="30d", show_default=True, help="such as 12h or 90d")
@database_options
def prune(older_than: str, database: str | None, environment: str | None) -> None:
    """Forget runs that succeeded, failed or were cancelled long ago. Those to be resumed stay."""
    from schemas.base import parse_duration

    try:
        age = parse_duration(older_than).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from None

    async def work(store: Store) -> str:
        from runner.ledger.runs import prune_runs

        count = await prune_runs(store, age)
        return f"{count} run{'' if count == 1 else 's'} forgotten"

    _with_ledger(database, environment, work)
