"""The command line: reads options, calls `api`, prints through `report`, chooses the exit status."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner import __version__
from runner.cli.audit import audit, blame
from runner.cli.keys import keys
from runner.cli.migrate import migrate
from runner.cli.options import FILE, database_options
from runner.cli.plan import plan
from runner.cli.runs import runs
from runner.cli.schedule import schedule

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from runner.errors import DfrunError
    from runner.run.choices import RunOptions
    from runner.run.executor import Executor
    from runner.run.results import RunResult

INTERRUPTED = {2: 130, 15: 143, 1: 143}
"""Exit status by signal; a closed terminal (SIGHUP) ends a run as SIGTERM does."""


class VerbOrFile(click.Group):
    """`dfrun FILE` is `dfrun run FILE`; a verb wins over a file of the same name."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that the first word names, `run` when it names a file."""
        word = args[0]
        if word not in self.commands and (word == "-" or "." in word or "/" in word or Path(word).exists()):
            return "run", self.commands["run"], args
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and options; files where none of them begins like this."""
        from click.shell_completion import CompletionItem

        return super().shell_complete(ctx, incomplete) or [CompletionItem(incomplete, type="file")]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click would end with 1 when the reader of a pipe has left."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderLeft from error


class ReaderLeft(Exception):
    """The reader of a pipe has left: not an error, and nothing more to say to it."""


@click.group(cls=VerbOrFile, context_settings={"help_option_names": ["-h", "--help"]}, options_metavar="")
@click.version_option(__version__, prog_name="dfrun", message="%(prog)s %(version)s")
def group() -> None:
    """Declarative pipelines for database work.

    `dfrun FILE` runs a pipeline; it is short for `dfrun run FILE`.
    """


group.add_command(runs)
group.add_command(plan)
group.add_command(schedule)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. What dfrun refuses is printed as problems; its own bugs go to a file, one line to the
    user."""
    from runner.errors import DfrunError

    _fill_closed_streams()
    # a start makes many objects and drops few: looking for garbage took a sixth of checking 10,000 steps
    gc.set_threshold(100_000)
    # pydantic would look through every installed package for plugins, which takes as long as reading a small file
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        group.main(args=list(arguments) if arguments is not None else None, prog_name="dfrun", standalone_mode=False)
        sys.exit(0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except DfrunError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except ReaderLeft:
        _drop_output()
        sys.exit(141)
    except OSError as error:
        _drop_output()
        where = f" {error.filename}" if error.filename else ""
        click.echo(f"DF505 the system refused{where}: {error.strerror or type(error).__name__}", err=True)
        sys.exit(1)
    except Exception as error:
        sys.exit(_bug(error))


def _fill_closed_streams() -> None:
    """Give the null device to streams that the caller closed, before a database file gets their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))  # noqa: PTH123, SIM115


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that leaving does not fail on it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: DfrunError) -> None:
    from runner import report
    from runner.cli.paint import painted

    with suppress(OSError):  # the status says it, too
        click.echo(painted(report.problems_text(error.problems, report.lines_of)), err=True)


def _bug(error: BaseException) -> int:
    """One line to the user, the traceback into a file; 70."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="dfrun-bug-", suffix=".txt", delete=False) as file:
        file.writelines(traceback.format_exception(error))
    click.echo(f"dfrun: this is a bug ({type(error).__name__}); what happened stands in {file.name}", err=True)
    return 70


def _output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    form = click.Choice(["text", "json", "jsonl"])
    for option in (
        click.option("--debug", is_flag=True, help="show tracebacks"),
        click.option("-v", "--verbose", is_flag=True, help="every start and end of a step"),
        click.option("-q", "--quiet", is_flag=True, help="no progress"),
        click.option("-o", "--output", type=form, default="text", show_default=True),
    ):
        command = option(command)
    return command


def _codes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from runner.codes import codes

    return [CompletionItem(c.code, help=c.title) for c in codes().values() if c.code.startswith(incomplete.upper())]


def _nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The nodes of the project here; none of its own while its models are wrong."""
    from click.shell_completion import CompletionItem

    from runner import api
    from runner.errors import DfrunError
    from runner.nodes import BUILT_IN_KINDS, MODEL_KINDS

    names = list(BUILT_IN_KINDS)
    with suppress(DfrunError):
        names += [f"{model}.{kind}" for model in api.load_catalog(Path()).models for kind in MODEL_KINDS]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@group.command()
@click.argument("file", type=FILE)
@click.option("-p", "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="set a parameter")
@click.option("--params", "parameters_file", type=FILE, metavar="FILE", help="parameters from a YAML or JSON file")
@database_options
@click.option("--dry-run", is_flag=True, help="run everything, report, and roll it back")
@click.option("--due", is_flag=True, help="run what its schedule has due, each slot once")
@click.option("--only", multiple=True, metavar="STEP", help="this step and what it needs")
@click.option("--tenant", metavar="NAME", help="whose rows it reads and writes")
@click.option("--run-id", metavar="ID", help="the run's name; one is made without it")
@click.option("--idempotency-key", metavar="KEY", help="a second run with this key gives the first one's result")
@click.option(
    "--allow-cross-tenant", is_flag=True, help="statements with cross_tenant may reach the rows of all tenants"
)
@_output_options
def run(
    file: Path, parameters: tuple[str, ...], parameters_file: Path | None, database: str | None,
    environment: str | None, only: tuple[str, ...], tenant: str | None, run_id: str | None,
    idempotency_key: str | None, dry_run: bool, due: bool, allow_cross_tenant: bool, **shown: Any,
) -> None:  # fmt: skip
    """Check a pipeline and its tables, then run it."""
    from runner import api

    options = api.RunOptions(
        parameters, parameters_file, database, environment, only, run_id, tenant, idempotency_key=idempotency_key,
        dry_run=dry_run, allow_cross_tenant=allow_cross_tenant, due=due,
    )  # fmt: skip
    _conduct(lambda told, started: api.run_file(file, told, started), options, **shown)


@group.command()
@click.argument("run_id", metavar="RUN")
@click.option("--use-current", is_flag=True, help="take the file as it is now for the steps that have not run")
@click.option("--mark-done", metavar="STEP", help="this step, whose outcome is unknown, was done")
@click.option("--with-output", metavar="YAML", help="what the step of --mark-done gave: '{id: 7}'")
@click.option("--redo", multiple=True, metavar="STEP", help="this step, whose outcome is unknown, was not done")
@click.option(
    "--skip-undo", multiple=True, metavar="STEP", help="this step, or item STEP:NUMBER of a loop, is not undone"
)
@click.option("--reason", metavar="TEXT", help="why: it is put on record")
@database_options
@_output_options
def resume(
    run_id: str, use_current: bool, mark_done: str | None, with_output: str | None, redo: tuple[str, ...],
    skip_undo: tuple[str, ...], reason: str | None,
    database: str | None, environment: str | None, **shown: Any,
) -> None:  # fmt: skip
    """Go on with a run that was interrupted or has failed. What is recorded does not run again."""
    from runner import api

    decisions = api.Decisions(use_current, mark_done, with_output, redo, skip_undo, reason)
    options = api.RunOptions(database=database, environment=environment)
    _conduct(lambda told, started: api.resume_run(run_id, told, decisions, started), options, **shown)


@group.command()
@click.argument("run_id", metavar="RUN")
@database_options
@_output_options
def undo(run_id: str, database: str | None, environment: str | None, **shown: Any) -> None:
    """Take a run back: the undo of each of its steps that has one, the last one first."""
    from runner import api

    options = api.RunOptions(database=database, environment=environment)
    _conduct(lambda told, started: api.undo_run(run_id, told, started), options, **shown)


def _conduct(
    work: Callable[[RunOptions, Callable[[Executor], None]], Awaitable[RunResult]], options: RunOptions, *,
    output: str, quiet: bool, verbose: bool, debug: bool,
) -> None:  # fmt: skip
    """Run something, show it, and leave with its exit status."""
    import asyncio
    from dataclasses import replace

    from runner import report
    from runner.cli.paint import painted
    from runner.cli.progress import choose_progress
    from runner.cli.signals import Signals
    from runner.errors import DfrunError

    progress = choose_progress(output, quiet=quiet, verbose=verbose)
    options = replace(options, emit=progress.take)
    signals = Signals(progress.note)

    async def go() -> RunResult:
        with progress:
            return await work(options, signals.listen)

    try:
        result = asyncio.run(go())
    except DfrunError as error:
        if output == "text":
            raise
        click.echo(report.refusal_json(error))
        sys.exit(error.exit_code)
    if output == "text":
        click.echo(painted(report.run_text(result)))
        if result.problems:
            click.echo(painted(report.problems_text(result.problems, report.lines_of)), err=True)
    else:
        click.echo(report.run_json(result, one_line=output == "jsonl"))
    if result.bug is not None:
        if debug:
            raise result.bug
        sys.exit(_bug(result.bug))
    sys.exit(INTERRUPTED.get(signals.caught, 130) if signals.caught else report.exit_status(result))


@group.command()
@click.argument("paths", nargs=-1, required=True, type=FILE)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "github", "sarif"]), default="text", show_default=True
)
def validate(paths: tuple[Path, ...], output: str) -> None:
    """Check pipelines and models offline: text, graph and types. A folder means every YAML file in it."""
    from runner import api, report
    from runner.cli.paint import painted
    from runner.errors import DefinitionError, Problem, sort_problems

    problems: list[Problem] = []
    for path in paths:
        try:
            for file in api.check(path):
                problems += file.warnings
                if output == "text" and file.kind == "other":
                    click.echo(f"{api.shown(file.path)}: passed over, it is neither models nor a pipeline")
                elif output == "text":
                    noun = {"models": "model", "pipeline": "step", "migration": "step"}.get(file.kind, "setting")
                    size = f"{file.size} {noun}{'' if file.size == 1 else 's'}"
                    found = f"{len(file.warnings)} warning{'' if len(file.warnings) == 1 else 's'}"
                    click.echo(f"{api.shown(file.path)}: {size}, {found if file.warnings else 'no problems'}")
        except DefinitionError as error:
            problems += error.problems
    problems = sort_problems(problems)
    if output == "json":
        click.echo(report.problems_json(problems))
    elif output == "sarif":
        click.echo(report.problems_sarif(problems))
    elif problems and output == "github":
        click.echo(report.problems_github(problems))
    elif problems:
        click.echo(painted(report.problems_text(problems, report.lines_of)), err=True)
    sys.exit(2 if any(problem.severity == "error" for problem in problems) else 0)


group.add_command(migrate)
group.add_command(audit)
group.add_command(blame)
group.add_command(keys)


@group.command()
@click.argument("code", shell_complete=_codes)
def explain(code: str) -> None:
    """What a problem code means, with a wrong and a right example."""
    from runner.codes import find_code

    found = find_code(code)
    click.echo(f"{found.code}: {found.title}\n\n{found.why}\n")
    for word, text in (("wrong", found.wrong), ("right", found.right)):
        click.echo(
            f"{word}\n" + "\n".join(f"  {line}" for line in text.rstrip().splitlines()) + "\n", nl=word == "wrong"
        )


@group.command()
@click.argument("name", required=False, shell_complete=_nodes)
@click.option(
    "--models", "path", type=FILE, default=Path(), metavar="PATH", help="a file of models, or a folder in a project"
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def nodes(name: str | None, path: Path, output: str) -> None:
    """The catalogue of nodes; with a NAME, its ports, their types, and an example."""
    from runner import api, describe
    from runner.errors import DefinitionError, Problem
    from schemas.types import ValueProblem

    models = api.load_catalog(path).models
    try:
        if name is None:
            click.echo(describe.catalogue_json(models) if output == "json" else describe.catalogue_text(models))
        else:
            click.echo(describe.node_json(name, models) if output == "json" else describe.node_text(name, models))
    except ValueProblem as problem:
        raise DefinitionError(Problem("DF308", problem.what, None, problem.why, problem.fix)) from None


@group.command()
@click.argument("file", type=FILE)
@click.option(
    "-o", "--output", type=click.Choice(["text", "mermaid", "dot", "json"]), default="text", show_default=True
)
def graph(file: Path, output: str) -> None:
    """The steps of a pipeline and what flows between them."""
    from runner import api, drawing

    draw = {"text": drawing.graph_text, "mermaid": drawing.graph_mermaid, "dot": drawing.graph_dot,
            "json": drawing.graph_json}  # fmt: skip
    click.echo(draw[output](api.load(file).graph))


@group.command()
@click.argument("what", type=click.Choice(["models", "pipeline"]), default="pipeline")
@click.option(
    "--models", "path", type=FILE, default=Path(), metavar="PATH", help="a file of models, or a folder in a project"
)
def schema(what: str, path: Path) -> None:
    """JSON Schema for editors, with the project's own models in it."""
    from runner import api, jsonschema

    if what == "models":
        click.echo(jsonschema.models_schema())
    else:
        click.echo(jsonschema.pipeline_schema(api.load_catalog(path).models))


@group.command()
@click.argument("folder", type=FILE, default=Path())
def init(folder: Path) -> None:
    """Write a starter project: models, a pipeline, and a file that it loads."""
    from runner import api

    written = api.init(folder)
    for path in written:
        click.echo(f"wrote {api.shown(path)}")
    click.echo(f"now run: dfrun {api.shown(written[1])}")


@group.command()
@click.argument("folder", type=FILE, default=Path())
@database_options
def doctor(folder: Path, database: str | None, environment: str | None) -> None:
    """Look at the surroundings: versions, project, database, tables. Changes nothing."""
    import asyncio

    from runner.doctor import examine

    findings = asyncio.run(examine(folder, database, environment))
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = {True: "✓", False: "✗", None: "-"}[finding.is_fine]
        click.echo(f"{mark} {finding.subject:<{width}}  {finding.text}")
    sys.exit(1 if any(finding.is_fine is False for finding in findings) else 0)


@group.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """The completion script of a shell: `eval "$(dfrun completion bash)"`."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, f"click knows {shell}"
    click.echo(found(group, {}, "dfrun", "_DFRUN_COMPLETE").source())
