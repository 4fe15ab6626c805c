"""The verbs over the trail of changes: `dfrun audit verify` and `dfrun blame`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runner.cli.options import FILE, database_options


@click.group()
def audit() -> None:
    """The trail of changes that models with `audit_log` keep."""


@audit.command()
@click.argument("path", type=FILE, default=Path())
@click.option("--head", metavar="NUMBER:HASH", help="what a run printed: the chain must still reach as far")
@database_options
def verify(path: Path, head: str | None, database: str | None, environment: str | None) -> None:
    """Look for changed, removed, inserted or moved entries; 1 when the trail is not whole."""
    import asyncio

    from runner import audits, report

    verdict = asyncio.run(audits.verify_audit(path, database, environment, head))
    click.echo(report.verdict_text(verdict))
    sys.exit(1 if verdict.faults else 0)


@click.command()
@click.argument("model")
@click.argument("key")
@click.option(
    "--models", "path", type=FILE, default=Path(), metavar="PATH", help="a file of models, or a folder in a project"
)
@click.option("--tenant", metavar="NAME", help="whose row it is")
@database_options
def blame(model: str, key: str, path: Path, tenant: str | None, database: str | None, environment: str | None) -> None:
    """The life of one row: every change, by whom, when, in which run and step."""
    import asyncio

    from runner import audits, report

    found, changes = asyncio.run(audits.blame(path, model, key, tenant, database, environment))
    hidden = {name for name, field in found.fields.items() if field.sensitive}
    for change in changes:
        click.echo(report.change_text(change, hidden))
    if not changes:
        click.echo(f"nothing is recorded of {model} {key}")
