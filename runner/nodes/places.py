"""Where a file lies whose name may hold a day: `path`, or `pattern` in `folder` with the parts of `at` filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo

from runner.nodes.arguments import read_under
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.types import Connection, Delivered, ValueProblem, ValueType

STRING = ValueType("string")
PATTERN = Port("pattern", STRING, help="a name in the folder; %Y %m %d %H %M %S %j take their parts from `at`")
FOLDER = Port("folder", STRING, default=".", help="relative folders start at the pipeline's")
AT = Port("at", ValueType("any"), help="a date or datetime, such as run.scheduled_at")
_DIRECTIVE = re.compile(r"%(.?)")
_KNOWN = "YmdHMSj%"


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A path as text, or the parts it is made of. Connections stand in them until the run."""

    path: object
    pattern: object = None
    folder: object = "."
    at: object = None

    def text(self, zone: tzinfo = UTC) -> str:
        """The path, with the day filled in that it is in a zone."""
        if self.path is not None:
            return str(self.path)
        name = filled(str(self.pattern), self.at, zone)
        return name if self.folder == "." else f"{self.folder}/{name}"


def read_place(arguments: Mapping[str, object], *, has_path: bool = True) -> FilePlace:
    """What `path`, or `pattern` with `folder` and `at`, says. Raises `ValueProblem`."""
    if has_path and ("path" in arguments) == ("pattern" in arguments):
        what = "path and pattern are two ways to say where" if "path" in arguments else "nothing says which file"
        raise ValueProblem(what, kind="shape", fix="path: out.csv, or pattern: out-%Y-%m-%d.csv with at")
    if "path" in arguments:
        for name in ("folder", "at"):
            if name in arguments:
                raise ValueProblem(f"{name} belongs to pattern", (name,), kind="shape", fix="write pattern for path")
        return FilePlace(_text("path", arguments["path"]))
    pattern, folder = _text("pattern", arguments["pattern"]), _text("folder", arguments.get("folder", "."))
    at = read_under("at", lambda: _instant(arguments["at"])) if "at" in arguments else None
    if isinstance(pattern, str):
        if "/" in pattern or "\\" in pattern or pattern in ("", ".", ".."):
            raise ValueProblem("a pattern is a name in the folder", ("pattern",), fix="folder: names the folder")
        words = _DIRECTIVE.findall(pattern)
        for word in words:
            if word not in _KNOWN or not word:
                fix = "one of: " + " ".join(f"%{known}" for known in _KNOWN)
                raise ValueProblem(f"{'%' + word!r} is no part of a date", ("pattern",), fix=fix)
        if at is None and any(word != "%" for word in words):
            why = "no step reads the clock"
            raise ValueProblem("the pattern has a day and nothing says which", kind="shape", why=why,
                               fix="inputs: {at: run.scheduled_at}")  # fmt: skip
    return FilePlace(None, pattern, folder, at)


def filled(pattern: str, at: object, zone: tzinfo = UTC) -> str:
    """The pattern with the parts of the day in it."""
    moment = at.astimezone(zone) if isinstance(at, datetime) else at if isinstance(at, date) else None

    def part(found: re.Match[str]) -> str:
        return "%" if found[1] == "%" else moment.strftime(found[0]) if moment else found[0]

    return _DIRECTIVE.sub(part, pattern)


def _text(name: str, raw: object) -> object:
    value = read_under(name, lambda: parse_value(STRING, raw))
    return value if isinstance(value, Connection) else str(value)


def _instant(raw: object) -> object:
    kind = raw.type if isinstance(raw, (Connection, Delivered)) else None
    if isinstance(raw, Connection):
        if raw.type.nullable or raw.type.kind not in ("date", "datetime", "any"):
            raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted date or datetime", kind="connection")
        return raw
    if kind is not None and kind.kind == "date":
        return parse_value(kind, raw)
    if isinstance(raw, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", raw):
        return parse_value(ValueType("date"), raw)
    return parse_value(ValueType("datetime"), raw)
