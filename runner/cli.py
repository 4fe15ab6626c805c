"""The command line: reads options, calls `api`, prints through `report`, chooses the exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runner import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dfrun", message="%(prog)s %(version)s")
def main() -> None:
    """Declarative pipelines for database work."""


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
def validate(paths: tuple[Path, ...], output: str) -> None:
    """Check pipelines and models offline: text, graph and types. A folder means every YAML file in it."""
    from runner import api, report
    from runner.errors import DefinitionError, Problem, sort_problems

    problems: list[Problem] = []
    for path in paths:
        try:
            for file in api.check(path):
                if output == "text":
                    noun = "model" if file.kind == "models" else "step"
                    click.echo(
                        f"{api.shown(file.path)}: {file.size} {noun}{'' if file.size == 1 else 's'}, no problems"
                    )
        except DefinitionError as error:
            problems += error.problems
    problems = sort_problems(problems)
    if output == "json":
        click.echo(report.problems_json(problems))
    elif problems and output == "github":
        click.echo(report.problems_github(problems))
    elif problems:
        click.echo(report.problems_text(problems, _lines_of), err=True)
    sys.exit(2 if problems else 0)


def _lines_of(name: str) -> list[str]:
    try:
        return Path(name).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
