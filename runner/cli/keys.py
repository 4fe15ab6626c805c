"""The verbs of `dfrun keys`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runner.cli.options import FILE, database_options


@click.group()
def keys() -> None:
    """The keys of encrypted fields."""


@keys.command()
@click.argument("folder", type=FILE, default=Path())
@database_options
def status(folder: Path, database: str | None, environment: str | None) -> None:
    """How many values each key seals; 1 when some are sealed with a key that is not given."""
    import asyncio

    from runner.encryption import keyring

    found = asyncio.run(keyring.status(folder, database, environment))
    for use in found:
        name = f"{use.model}.{use.field}" if use.field else use.model
        click.echo(f"{name}  {use.key_id or 'a key that is not given'}  {use.values:,}")
    if not found:
        click.echo("no value is sealed")
    sys.exit(1 if any(use.key_id is None for use in found) else 0)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.argument("file", type=FILE)
def rotate(key_id: str, file: Path) -> None:
    """Make a new key in a FILE of its own, and say what dfrun.yaml needs for it."""
    from runner.encryption import keyring

    keyring.make_key(file)
    click.echo(f"wrote {file}; now in dfrun.yaml, under encryption:\n")
    click.echo(f"  current: {key_id}\n  keys:\n    {key_id}: {{file: {file}}}   # beside those that are there")
    click.echo("\nNew values are sealed with it from then on; dfrun keys reencrypt seals the old ones anew.")


@keys.command(name="reencrypt")
@click.argument("folder", type=FILE, default=Path())
@database_options
def reencrypt_values(folder: Path, database: str | None, environment: str | None) -> None:
    """Seal every value with the current key, in parts. Stopped, it goes on where it was."""
    import asyncio

    from runner.encryption import keyring

    done: dict[str, int] = {}

    def progress(model: str, rows: int) -> None:
        done[model] = done.get(model, 0) + rows
        click.echo(f"{model}: {done[model]:,} rows", err=True)

    total = asyncio.run(keyring.reencrypt(folder, database, environment, progress))
    click.echo(f"{total:,} rows were sealed anew" if total else "nothing to do: every value has the current key")
