"""`file.find`: the file of a day."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from runner.data.files import Files
from runner.errors import Problem, StepError
from runner.nodes.base import Checked, Context, Subject
from runner.nodes.places import AT, FOLDER, PATTERN, FilePlace, filled, read_place
from runner.nodes.textfile import read_word
from schemas.nodes import Port
from schemas.types import ValueProblem, ValueType

STRING = ValueType("string")
PICK = Port(
    "pick", ValueType("enum", values=("only", "first", "last")), default="only", literal=True,
    help="of several files that fit, in the order of their names",
)  # fmt: skip
_FOUND = ValueType(
    "record",
    fields={
        "path": STRING, "name": STRING, "size": ValueType("integer"), "modified_at": ValueType("datetime"),
    },
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Search:
    """Which file is wanted, and what to do about several."""

    place: FilePlace
    pick: str


class FileFind:
    """Takes a pattern, a folder and a day; gives the file's path, name, size and age."""

    name = "file.find"
    summary = "Find a file by a pattern with a day in it. Without one the error is not_found, which can be retried."
    uses_database = False
    writes = False
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        pattern = Port("pattern", STRING, True, help=f"{PATTERN.help}; * and ? stand for any text")
        return {port.name: port for port in (pattern, FOLDER, AT, PICK)}

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        return Checked(_FOUND, Search(read_place(arguments, has_path=False), read_word(arguments, PICK)))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        import asyncio

        assert isinstance(parsed, Search)
        return await asyncio.to_thread(find, parsed, context.files)


def find(search: Search, files: Files) -> Mapping[str, object]:
    """The one file that fits. Raises `StepError` DF530 (class not_found) without one, DF562 when there is a choice."""
    folder, name = str(search.place.folder), filled(str(search.place.pattern), search.place.at, files.zone)
    if "/" in name or "\\" in name:
        raise ValueProblem("a pattern is a name in the folder", ("pattern",))
    try:
        names = [each for each in files.names(folder) if fnmatch.fnmatchcase(each, name)]
        fits = [each for each in names if files.at(f"{folder}/{each}").is_file()]
    except OSError as error:
        what = f"the folder {folder!r} cannot be read: {error.strerror}"
        raise StepError(Problem("DF530", what), "not_found") from None
    if not fits:
        raise StepError(Problem("DF530", f"there is no file {name!r} in the folder {folder!r}"), "not_found")
    if len(fits) > 1 and search.pick == "only":
        what = f"{len(fits)} files fit {name!r}"
        raise StepError(Problem("DF562", what, None, "", "a narrower pattern, or pick: first or last"))
    found = fits[-1] if search.pick == "last" else fits[0]
    stat = files.at(f"{folder}/{found}").stat()
    return {
        "path": found if folder == "." else f"{folder}/{found}", "name": found, "size": stat.st_size,
        "modified_at": datetime.fromtimestamp(stat.st_mtime, UTC),
    }  # fmt: skip


KIND = FileFind()
