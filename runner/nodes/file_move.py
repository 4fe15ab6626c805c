"""`file.move`: a file into another folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import Problem, StepError
from runner.nodes.arguments import read_under
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.textfile import PATH, read_path, read_switch
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.types import Connection, ValueType

STRING = ValueType("string")
TO = Port("to", STRING, True, help="the folder; relative ones start at the pipeline's, missing ones are made")
OVERWRITE = Port("overwrite", ValueType("boolean"), default=False, literal=True, help="replace a file of that name")


@dataclass(frozen=True, slots=True)
class Move:
    """What goes where."""

    path: object
    to: object
    overwrites: bool


class FileMove:
    """Takes a path and a folder; gives the new path."""

    name = "file.move"
    summary = "Move a file into another folder. Doing it twice is doing it once, so it is safe to resume."
    uses_database = False
    writes = True
    runs_dry = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {port.name: port for port in (PATH, TO, OVERWRITE)}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        to = read_under("to", lambda: parse_value(STRING, arguments.get("to")))
        move = Move(
            read_path(arguments), to if isinstance(to, Connection) else str(to), read_switch(arguments, "overwrite")
        )
        return Checked(ValueType("record", fields={"path": STRING}), move)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        import asyncio

        assert isinstance(parsed, Move)
        path, new, files = str(parsed.path), f"{parsed.to}/{Path(str(parsed.path)).name}", context.files
        source, target = files.at(path), files.at(new)
        if files.is_dry:
            check_move(source, target, overwrites=parsed.overwrites)
            files.move(path, new)
        else:
            await asyncio.to_thread(move, source, target, overwrites=parsed.overwrites)
        return {"path": new}


def check_move(source: Path, target: Path, *, overwrites: bool) -> None:
    """Raises `StepError` DF530 (class not_found) when there is nothing to move, DF561 when the name is taken."""
    if not source.is_file():
        raise StepError(Problem("DF530", f"there is no file {str(source)!r}"), "not_found")
    if target.exists() and not overwrites and not target.samefile(source):
        what = f"there is a file {str(target)!r} already"
        raise StepError(Problem("DF561", what, None, "", "overwrite: true replaces it"))


def move(source: Path, target: Path, *, overwrites: bool) -> None:
    """Move a file; it is there under its new name whole, or not at all. A move that was done already is left as it is.

    Raises `StepError` DF530 (class not_found) when there is nothing to move, DF561 when the name is taken.
    """
    try:
        if not source.is_file() and target.is_file():
            return  # an attempt that died after the move
        check_move(source, target, overwrites=overwrites)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_dev == target.parent.stat().st_dev:
            source.replace(target)
            return
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(descriptor)
        try:
            shutil.copy2(source, name)
            with Path(name).open("rb") as file:
                os.fsync(file.fileno())
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
        source.unlink()
    except OSError as error:
        raise StepError(Problem("DF535", f"the file {str(target)!r} cannot be written: {error.strerror}")) from None


KIND = FileMove()
