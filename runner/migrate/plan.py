"""A migration plan: what is hashed, what it says to readers, and its file.

Only `body` is hashed: no time, no user, no path, no count of rows. The same models, database and dfrun give the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.errors import DefinitionError, Problem
from runner.migrate.risks import Level
from runner.migrate.snapshot import Snapshot, canonical
from runner.migrate.step import Probe, Step, risk_of, step_from
from runner.source import Document
from runner.sql.filters import Database
from schemas.base import Scalar


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the database at hand shows: rows by table, what each probe found by its SQL, sizes in bytes. Not hashed."""

    rows: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    proved: str = ""


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """The steps from one state to another. `blocked`: why it cannot run; `drifted`: what was changed by hand; `notes`:
    what a reader should know. `before` and `after` are the managed tables on both ends."""

    database: Database
    server: str
    before: Snapshot
    after: Snapshot
    steps: tuple[Step, ...]
    allow: tuple[str, ...] = ()
    blocked: tuple[Problem, ...] = ()
    drifted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Evidence = Evidence()
    written: tuple[tuple[str, str], ...] = ()
    hints: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        """The highest risk of its steps."""
        return risk_of(list(self.steps))

    @property
    def changes(self) -> dict[str, Level]:
        """Every change with its level, in order."""
        return {part.change: part.level for step in self.steps for part in step.parts}

    def body(self) -> dict[str, object]:
        """What is hashed and reviewed."""
        return {
            "dialect": self.database, "server": self.server, "from": self.before.fingerprint,
            "to": self.after.fingerprint, "risk": self.level, "written": [list(w) for w in self.written],
            "steps": [step.body(number) for number, step in enumerate(self.steps, 1)],
            "blocked": [problem.what for problem in self.blocked if problem.code != "DF607"],
            "allow": sorted(self.allow),
        }  # fmt: skip

    @property
    def hash(self) -> str:
        """`sha256:` of the body."""
        return hash_of(self.body())

    @property
    def probes(self) -> list[Probe]:
        """Every probe, in order."""
        return [probe for step in self.steps for probe in step.probes]

    def file(self) -> str:
        """The plan file."""
        probes = [{"says": p.says, "found": self.evidence.found.get(p.sql)} for p in self.probes]
        evidence = {"rows": dict(self.evidence.rows), "proved": self.evidence.proved, "probes": probes}
        return yaml_text({"dfrun_plan": 1, "hash": self.hash, "body": self.body(), "evidence": evidence})


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan file that was read back: its body, untouched since it was written."""

    hash: str
    body: Mapping[str, Any]

    @property
    def allow(self) -> frozenset[str]:
        """The HIGH changes that a human accepted."""
        return frozenset(self.body["allow"])

    @property
    def steps(self) -> list[Step]:
        """Its steps."""
        return [step_from(step) for step in self.body["steps"]]


def hash_of(body: Mapping[str, object]) -> str:
    """`sha256:` of a body."""
    return "sha256:" + hashlib.sha256(canonical(body).encode()).hexdigest()


def read_plan(document: Document) -> PlanFile:
    """The plan of a file. Raises `DefinitionError` DF612 for one that was edited, or is none."""
    root = _plain(document.root)
    if not isinstance(root, dict) or root.get("dfrun_plan") != 1 or not isinstance(root.get("body"), dict):
        raise DefinitionError(Problem("DF612", "this file is no migration plan", document.place(()), "",
                                      "dfrun migrate plan -o yaml > plan.yaml"))  # fmt: skip
    if root.get("hash") != hash_of(root["body"]):
        why = "its hash does not fit its body; a plan is reviewed as it was made"
        fix = "make it again: dfrun migrate plan -o yaml; --allow accepts HIGH changes"
        raise DefinitionError(Problem("DF612", "the plan was edited", document.place(("hash",)), why, fix))
    return PlanFile(str(root["hash"]), root["body"])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, Scalar) and value.plain and re.fullmatch(r"-?\d+", value):
        return int(value)
    return str(value) if isinstance(value, str) else value


def yaml_text(value: Mapping[str, object]) -> str:
    """A mapping as YAML: keys plain where they are names, numbers plain, every text in double quotes."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Mapping[str, object] | Sequence[object], indent: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = (
                key if re.fullmatch(r"[A-Za-z_]\w*", key) and key not in ("null", "true", "false") else json.dumps(key)
            )
            if isinstance(inner, (Mapping, list)) and inner:
                found += [f"{indent}{name}:", *_lines(inner, f"{indent}  ")]
            else:
                found.append(f"{indent}{name}: {_scalar(inner)}")
        return found
    for inner in value:
        if isinstance(inner, (Mapping, list)) and inner:
            first, *rest = _lines(inner, f"{indent}  ")
            found += [f"{indent}- {first.lstrip()}", *rest]
        else:
            found.append(f"{indent}- {_scalar(inner)}")
    return found


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
