"""A backup by a command of the user's: `pg_dump`, or a hook that takes a snapshot. dfrun starts it before a migration
that is more than harmless, and goes on only when it ends well."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from runner.errors import Problem, TablesError
from runner.migrate.plan import MigrationPlan
from runner.migrate.step import Backup


@dataclass(frozen=True, slots=True)
class BackupCommand:
    """A program with its arguments, started in `home`. It finds the database's address in DFRUN_DATABASE_URL and the
    file that it may write in DFRUN_BACKUP_FILE, which lies in `folder`."""

    words: tuple[str, ...]
    home: Path
    folder: Path
    seconds: float


async def run_command(command: BackupCommand, url: str, plan: MigrationPlan) -> Backup | None:
    """Start the command and wait for it; what it wrote, None where the plan is harmless and nothing was started.

    Raises `TablesError` DF622 when it fails or takes too long; nothing was changed then. What it says is not told: a
    dump's errors may name rows.
    """
    if plan.level == "LOW" or not plan.before.tables:
        return None
    file = command.folder / f"{plan.database}-{plan.hash[7:15]}.backup"
    name = command.words[0]
    told = {"DFRUN_DATABASE_URL": url, "DFRUN_BACKUP_FILE": str(file)}
    nothing = asyncio.subprocess.DEVNULL
    try:
        command.folder.mkdir(parents=True, exist_ok=True)
        process = await asyncio.create_subprocess_exec(
            *command.words, cwd=command.home, env=os.environ | told, stdin=nothing, stdout=nothing, stderr=nothing
        )
    except OSError as error:
        raise _failed(f"the backup command {name!r} cannot be started", str(error.strerror)) from error
    try:
        status = await asyncio.wait_for(process.wait(), command.seconds)
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise _failed(f"the backup command {name!r} took longer than {command.seconds:g} s", "") from error
        raise
    if status:
        raise _failed(f"the backup command {name!r} ended with status {status}", "")
    return file_backup(file)


def file_backup(file: Path) -> Backup:
    """A file as the ledger keeps it; of no size where a command wrote none."""
    return Backup("file", "", file.name, str(file.stat().st_size if file.is_file() else 0))


def _failed(what: str, why: str) -> TablesError:
    fix = "try it by hand, with DFRUN_DATABASE_URL and DFRUN_BACKUP_FILE set"
    return TablesError(Problem("DF622", what, None, why or "nothing was changed", fix))
