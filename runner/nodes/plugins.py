"""Nodes that other packages bring, through the entry-point group `dfrun.nodes`: found by name, loaded when a pipeline
names them, and never trusted to fail well.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from runner.data.rows import Stream
from runner.errors import Problem, StepError
from runner.nodes.base import Checked, Context, Kind, Subject
from schemas.nodes import Port
from schemas.types import ValueProblem

GROUP = "dfrun.nodes"
_PARTS = ("name", "summary", "uses_database", "writes", "ports", "check", "run")


@cache
def plugin_names() -> Mapping[str, tuple[EntryPoint, ...]]:
    """The names of all nodes that installed packages bring; reads their metadata and imports none of them."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        # one distribution may be found twice on a path that names a folder twice
        known = found.get(entry.name, ())
        if all(other.value != entry.value for other in known):
            found[entry.name] = (*known, entry)
    return found


@cache
def load_plugin(name: str) -> Kind:
    """The kind that a package brings under this name. Raises `ValueProblem` that names the package at fault."""
    entries = plugin_names()[name]
    packages = [_package(entry) for entry in entries]
    if len(entries) > 1:
        what = f"{name!r} is a node of more than one package: {', '.join(packages)}"
        raise ValueProblem(what, kind="name", fix="uninstall all but one of them")
    try:
        kind = entries[0].load()
    except Exception as error:
        what = f"the node {name!r} of the package {packages[0]!r} cannot be loaded: {_where(error)}"
        raise ValueProblem(what, kind="name", fix=f"mend or uninstall {packages[0]}") from None
    lacking = [part for part in _PARTS if not hasattr(kind, part)]
    if lacking:
        what = f"the node {name!r} of the package {packages[0]!r} is no node: it lacks {', '.join(lacking)}"
        raise ValueProblem(what, kind="name", fix=f"mend or uninstall {packages[0]}")
    if kind.name != name:
        what = f"the package {packages[0]!r} brings {kind.name!r} under the name {name!r}"
        raise ValueProblem(what, kind="name", fix="one name for one node")
    return Plugin(kind, packages[0])


def loaded_plugins() -> dict[str, Kind]:
    """Every node of other packages that can be loaded, by its name."""
    kinds: dict[str, Kind] = {}
    for name in sorted(plugin_names()):
        try:
            kinds[name] = load_plugin(name)
        except ValueProblem:
            continue  # whoever names it is told
    return kinds


class Plugin:
    """A kind of another package. What it raises besides `ValueProblem` and `StepError` is told as its mistake."""

    def __init__(self, kind: Kind, package: str) -> None:
        self._kind = kind
        self.package = package
        self.name, self.summary = kind.name, kind.summary
        self.uses_database, self.writes = bool(kind.uses_database), bool(kind.writes)
        self.is_repeatable = bool(getattr(kind, "is_repeatable", False))

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        """The ports of the kind."""
        try:
            return self._kind.ports(subject, arguments)
        except ValueProblem:
            raise
        except Exception as error:
            raise self._broken("ports", error) from error

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        """What the kind makes of its arguments."""
        try:
            return self._kind.check(arguments, subject)
        except (ValueProblem, ExceptionGroup):
            raise
        except Exception as error:
            raise self._broken("check", error) from error

    async def run(self, parsed: object, context: Context) -> Mapping[str, object] | Stream | None:
        """The work of the kind."""
        from runner.dialects.errors import is_database_error

        try:
            return await self._kind.run(parsed, context)
        except (StepError, ValueProblem, OSError):
            raise
        except Exception as error:
            if is_database_error(error):
                raise
            raise StepError(Problem("DF525", f"{self.name} of {self.package} raised {_where(error)}")) from error

    def _broken(self, part: str, error: Exception) -> ValueProblem:
        what = f"{self.name} of the package {self.package!r} is broken: its {part} raised {_where(error)}"
        return ValueProblem(what, kind="name", fix=f"mend or uninstall {self.package}")


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value.partition(":")[0]


def _where(error: Exception) -> str:
    """The type of an error and the line it comes from; its text may hold values."""
    if isinstance(error, ModuleNotFoundError):
        return f"there is no module {error.name!r}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
