"""The table of problem codes, read from `codes.yaml` when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from runner.errors import DefinitionError, Problem, did_you_mean


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means. `wrong` and `right` are files for DF1 to DF3 (beside the models of `shop`), words for the
    others."""

    code: str
    title: str
    why: str
    wrong: str
    right: str


@cache
def codes() -> Mapping[str, Code]:
    """All codes by name, in their order."""
    return {code: Code(code, **row) for code, row in _table()["codes"].items()}


def shop() -> str:
    """The models beside which the examples stand."""
    return str(_table()["shop"])


def find_code(text: str) -> Code:
    """The code of that name, in any case. Raises `DefinitionError` DF409 for an unknown one."""
    known = codes()
    if text.upper() not in known:
        raise DefinitionError(
            Problem("DF409", f"there is no problem code {text!r}", None, "", did_you_mean(text, known))
        )
    return known[text.upper()]


@cache
def _table() -> dict[str, dict[str, dict[str, str]]]:
    import yaml

    # a file of ours, in plain YAML: the strict reader is for what users write
    table: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
        files("runner").joinpath("codes.yaml").read_text("utf-8")
    )
    return table
