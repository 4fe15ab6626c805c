"""Parameters make sense before anyone gives them a value: defaults fit their types, checks are filters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from runner.errors import Problem
from schemas.filters import parse_filter
from schemas.parsing import parse_value
from schemas.types import ValueProblem

if TYPE_CHECKING:
    from runner.source import Document
    from schemas.pipeline import Param


def parameter_problems(document: Document, params: Mapping[str, Param]) -> Iterator[Problem]:
    """What is wrong with the declared parameters."""
    for name, param in params.items():
        kind = param.value_type()
        try:
            if "default" in param.model_fields_set:
                parse_value(kind, param.default)
        except ValueProblem as problem:
            place = document.place(("params", name, "default", *problem.path))
            yield Problem("DF309", f"default of {name!r}: {problem.what}", place, problem.why, problem.fix)
        try:
            if param.check is not None:
                parse_filter({name: param.check}, {name: kind})
        except ValueProblem as problem:
            place = document.place(("params", name, "check", *problem.path[1:]), key=problem.key)
            yield Problem("DF309", f"check of {name!r}: {problem.what}", place, problem.why, problem.fix)
