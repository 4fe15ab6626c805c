"""Options that several verbs take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)


def database_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--database` and `-e`."""
    command = click.option("-e", "--env", "environment", metavar="ENV", help="an environment of dfrun.yaml")(command)
    return click.option("--database", metavar="URL", help="postgresql://… or sqlite:///…")(command)
