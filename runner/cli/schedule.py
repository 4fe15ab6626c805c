"""The verbs of `dfrun schedule`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli.options import FILE, database_options

if TYPE_CHECKING:
    from datetime import datetime, tzinfo


@click.group()
def schedule() -> None:
    """Pipelines with a schedule: when they are due, and what fires them."""


_FORM = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


@schedule.command("list")
@click.argument("path", type=FILE, default=Path())
@database_options
@_FORM
def list_(path: Path, database: str | None, environment: str | None, output: str) -> None:
    """The scheduled pipelines of a folder, the next slot of each, and how its latest run stands."""
    import asyncio
    from datetime import UTC, datetime

    from runner.api import shown
    from runner.schedules import find_scheduled, latest_runs

    found = find_scheduled(path)
    runs = asyncio.run(latest_runs(database, environment, [each.name for each in found])) if found else {}
    now = datetime.now(UTC)
    rows = [(each, each.slots.next(now), runs.get(each.name)) for each in found]
    if output == "json":
        click.echo(json.dumps([{
            "pipeline": each.name, "file": str(shown(each.file)), "cron": each.schedule.cron,
            "timezone": each.schedule.timezone, "next": following and _instant(following),
            "last_run": run and {"run_id": run.run_id, "slot": run.slot, "state": run.status},
        } for each, following, run in rows], indent=2))  # fmt: skip
        return
    if not rows:
        click.echo("no pipeline here has a schedule")
    width = max((len(each.name) for each, _, _ in rows), default=0)
    for each, following, run in rows:
        when = _moment(following, each.slots.zone) if following else "never again"
        stands = f"{run.run_id} {run.status}" if run else "has not run"
        click.echo(f"{each.name:<{width}}  next {when}  {stands}")


@schedule.command("next")
@click.argument("file", type=FILE)
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="so many slots")
@_FORM
def next_(file: Path, count: int, output: str) -> None:
    """The next slots of a pipeline, on its own clock and in UTC; by the clock of this machine."""
    from datetime import UTC, datetime

    from runner.schedules import find_scheduled

    for scheduled in find_scheduled(file):
        slots = scheduled.slots.some(datetime.now(UTC), count)
        if output == "json":
            click.echo(json.dumps({"pipeline": scheduled.name, "slots": [_instant(slot) for slot in slots]}, indent=2))
            continue
        for slot in slots:
            click.echo(f"{_moment(slot, scheduled.slots.zone)}  {slot:%Y-%m-%d %H:%M} UTC")


@schedule.command()
@click.argument("path", type=FILE, default=Path())
@click.option("--every", metavar="TIME", default="10m", show_default=True, help="fire again after this, slot or none")
@click.option("--tenant", metavar="NAME", help="whose rows the runs read and write")
@database_options
def run(path: Path, every: str, tenant: str | None, database: str | None, environment: str | None) -> None:
    """Stay in the foreground and fire the pipelines of a folder when they are due, each in a process of its own.

    SIGTERM and SIGINT let what runs stop in order, and end the loop with 0; again, they leave at once.
    """
    import asyncio
    import signal

    from runner.schedules import Watch

    words = ["-q"]
    for option, value in (("--tenant", tenant), ("--database", database), ("-e", environment)):
        words += [option, value] if value else []
    watch = Watch(path, tuple(words), _seconds(every, "--every"), lambda told: click.echo(told, err=True))

    async def go() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, watch.stop, int(number))
        await watch.run()

    asyncio.run(go())
    sys.exit(0)


@schedule.command()
@click.argument("file", type=FILE)
@click.option("--as", "form", type=click.Choice(["crontab", "systemd", "kubernetes"]), default="crontab",
              show_default=True, help="who fires it")  # fmt: skip
@click.option("--jitter", metavar="TIME", help="spread pipelines over this time, 10m at most")
@click.option("--image", metavar="NAME", default="dfrun:latest", show_default=True, help="of --as kubernetes")
@click.option("--tenant", metavar="NAME", help="whose rows the runs read and write")
@click.option("-e", "--env", "environment", metavar="ENV", help="an environment of dfrun.yaml")
def export(file: Path, form: str, jitter: str | None, image: str, tenant: str | None, environment: str | None) -> None:
    """What makes cron, systemd or Kubernetes fire a pipeline; the database's address is left to its surroundings."""
    import shutil

    from runner.schedule import manifests
    from runner.schedules import find_scheduled

    seconds = round(_seconds(jitter, "--jitter")) if jitter else 0
    if seconds > manifests.LONGEST_JITTER_SECONDS:
        raise click.BadParameter("10m at most: a slot is on time for ten minutes", param_hint="--jitter")
    words = [*(["--tenant", tenant] if tenant else []), *(["-e", environment] if environment else [])]
    command = "dfrun" if form == "kubernetes" else shutil.which("dfrun") or "dfrun"
    for scheduled in find_scheduled(file):
        firing = manifests.Firing(
            scheduled.name, scheduled.file.resolve(), scheduled.slots, scheduled.said, command, tuple(words), seconds
        )
        if form == "kubernetes":
            click.echo(manifests.kubernetes(firing, image), nl=False)
        else:
            click.echo({"crontab": manifests.crontab, "systemd": manifests.systemd}[form](firing), nl=False)


def _seconds(text: str, option: str) -> float:
    from schemas.base import parse_duration

    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _moment(slot: datetime, zone: tzinfo) -> str:
    return f"{slot.astimezone(zone):%Y-%m-%d %H:%M} {zone}"


def _instant(slot: datetime) -> str:
    return slot.isoformat().replace("+00:00", "Z")
