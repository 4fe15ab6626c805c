"""Libraries that come with an extra of the package: found or missed with a clear word, imported where they are used."""

from __future__ import annotations

from importlib.util import find_spec

from runner.errors import Problem, StepError
from runner.nodes.base import Kind


def is_missing(extra: str) -> bool:
    """Whether a library of the extra is not installed; imports nothing."""
    return any(find_spec(library) is None for library in _LIBRARIES[extra])


_LIBRARIES = {"http": ("httpx",), "parquet": ("pyarrow",), "transform": ("duckdb", "pyarrow")}


def missing_extra(kind: Kind, node: str) -> Problem | None:
    """What is to be installed before the node can run; None for one that lacks nothing."""
    extra = getattr(kind, "extra", None)
    if extra is None or not is_missing(extra):
        return None
    why = "without it the step cannot run, and what it gives is not known"
    return Problem("DF424", f"{node} needs the extra {extra!r}", None, why, f"pip install 'dfrun[{extra}]'", "warning")


def wants(kind: Kind) -> None:
    """Raises `StepError` DF424 when a library of the kind is not installed."""
    problem = missing_extra(kind, kind.name)
    if problem is not None:
        raise StepError(problem)
