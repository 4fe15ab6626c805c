"""The risk catalogue, read from `risks.yaml`: how dangerous each kind of change is, and which locks it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

from runner.source import parse_document
from runner.sql.filters import Database

Level = Literal["LOW", "MEDIUM", "HIGH"]
LEVELS: tuple[Level, ...] = ("LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True, slots=True)
class Risk:
    """One rule of the catalogue for one database."""

    rule: str
    data: Level
    lock: Level
    compat: Level
    locks: str
    says: str

    @property
    def level(self) -> Level:
        """The highest of the three axes."""
        return highest(self.data, self.lock, self.compat)


def highest(*levels: Level) -> Level:
    """The most dangerous of them; LOW of none."""
    return max(levels, key=LEVELS.index, default="LOW")


@cache
def catalogue(database: Database) -> Mapping[str, Risk]:
    """Every rule by name."""
    text = files("runner.migrate").joinpath("risks.yaml").read_bytes()
    rules = cast("Mapping[str, Any]", parse_document(text, "risks.yaml").root["rules"])
    found: dict[str, Risk] = {}
    for name, row in rules.items():
        here = {**row, **(row.get("sqlite", {}) if database == "sqlite" else {})}
        if database == "sqlite":
            # there is one writer, and it lets readers go on: no lock of a table is in anybody's way
            here |= {"lock": "LOW", "locks": "write lock"}
        texts = {key: str(value) for key, value in here.items() if key != "sqlite"}
        found[name] = Risk(name, **cast("Any", texts))
    return found
