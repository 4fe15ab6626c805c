"""`dfrun plan`: what a run would do."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runner.cli.options import FILE, database_options


@click.command()
@click.argument("file", type=FILE)
@database_options
@click.option("--only", multiple=True, metavar="STEP", help="this step and what it needs")
@click.option("-o", "--output", type=click.Choice(["text", "json", "md"]), default="text", show_default=True)
@click.option("--check", "--exit-code", "is_check", is_flag=True, help="exit with 6 when the tables wait for changes")
def plan(
    file: Path, database: str | None, environment: str | None, only: tuple[str, ...], output: str, is_check: bool
) -> None:
    """What a run would do: what its tables wait for, what changed since the last run, and the SQL of each step.
    Changes nothing."""
    import asyncio

    from runner import preview, report

    found = asyncio.run(preview.preview(file, database, environment, only))
    texts = {"text": preview.preview_text, "json": preview.preview_json, "md": preview.preview_markdown}
    click.echo(texts[output](found))
    if found.tables.blocked:
        click.echo(report.problems_text(found.tables.blocked, lambda file: []), err=True)
        sys.exit(3)
    sys.exit(6 if is_check and found.tables.steps else 0)
