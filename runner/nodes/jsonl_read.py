"""`jsonl.read`: typed rows out of a file with one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from runner.errors import StepError
from runner.nodes.filerows import RecordRead, Tally
from runner.nodes.textfile import Layout, open_text, undecodable
from schemas.parsing import deliver
from schemas.types import ValueProblem


class JsonlRead(RecordRead):
    """Takes a path and the types of the members; gives `rows` as a stream, counts and rejects."""

    name = "jsonl.read"
    summary = "Read typed rows from a file with one JSON object a line."

    def probe(self, path: Path) -> None:
        open_text(path, "utf-8").close()

    def parse(self, path: Path, tally: Tally, layout: Layout) -> Iterator[tuple[int, tuple[object, ...]]]:
        """The rows of the file that fit; a member that is not there is null, or its default."""
        return _rows(path, tally, layout)


def _rows(path: Path, tally: Tally, layout: Layout) -> Iterator[tuple[int, tuple[object, ...]]]:
    number = 0
    with open_text(path, "utf-8") as file:
        try:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    tally.skipped += 1
                    continue
                try:
                    yield number, _row(text, layout)
                except ValueProblem as problem:
                    where = f"{problem.path[0]}: " if problem.path else ""
                    tally.reject(number, f"{where}{problem.what}", text.rstrip("\r\n"))
        except UnicodeDecodeError:
            raise StepError(replace(undecodable(path, "utf-8"), why="JSON is UTF-8", fix="")) from None


def _row(text: str, layout: Layout) -> tuple[object, ...]:
    try:
        item = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except (json.JSONDecodeError, RecursionError):
        raise ValueProblem("this is not JSON") from None
    if not isinstance(item, Mapping):
        raise ValueProblem("this is not a JSON object")
    values: list[object] = []
    for name, kind in layout.types.items():
        value = item.get(layout.names[name])
        if value is None and not kind.nullable and name in layout.stand_ins:
            value = layout.stand_ins[name]
        elif value is None and not kind.nullable and kind.kind != "json":
            raise ValueProblem("is missing" if layout.names[name] not in item else "is null", (name,))
        try:
            values.append(deliver(kind, _floats(value) if kind.kind in ("json", "list") else value))
        except ValueProblem as problem:
            raise problem.under(name) from None
    layout.judge(values)
    return tuple(values)


def _no_constant(word: str) -> object:
    raise ValueProblem("NaN and the infinities are not JSON")


def _floats(value: object) -> object:
    """Numbers of free JSON are floats; only typed fields read decimals."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _floats(inner) for key, inner in value.items()}
    return [_floats(inner) for inner in value] if isinstance(value, list) else value


KIND = JsonlRead()
