"""A document becomes a declaration: pydantic's verdict in our words, each with its place, all of a file at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from runner.errors import DefinitionError, Problem, did_you_mean
from runner.source import Document, Mapping
from schemas.migrations import WrittenMigration
from schemas.models import Models
from schemas.pipeline import Pipeline
from schemas.settings import Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound=BaseModel)


def load_pipeline(document: Document) -> Pipeline:
    """The pipeline of a document. Raises `DefinitionError` with every problem of the file."""
    return _load(Pipeline, document)


def load_models(document: Document) -> Models:
    """The models of a document. Raises `DefinitionError` with every problem of the file."""
    return _load(Models, document)


def load_settings(document: Document) -> Settings:
    """The settings of a `dfrun.yaml`. Raises `DefinitionError` with every problem of the file."""
    return _load(Settings, document)


def load_migration(document: Document) -> WrittenMigration:
    """The hand-written steps of a document. Raises `DefinitionError` with every problem of the file."""
    return _load(WrittenMigration, document)


def kind_of(document: Document) -> str:
    """`migration`, `models`, `pipeline`, `tests` or `settings`: what a file is shows in its top-level keys."""
    if "migration" in document.root:
        return "migration"
    if "steps" in document.root:
        return "pipeline"
    if isinstance(document.root.get("models"), Mapping):
        return "models"
    return "tests" if "tests" in document.root else "settings"


def _items(document: Document, key: str) -> list[tuple[str, Mapping]]:
    inside = document.root.get(key)
    return [(n, v) for n, v in inside.items() if isinstance(v, Mapping)] if isinstance(inside, Mapping) else []


def _load(kind: type[T], document: Document) -> T:
    try:
        return kind.model_validate(document.root)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
    problems = [_problem(kind, document, _path(document, detail), detail) for detail in details]
    words = {p.place for p in problems if p.code == "DF114"}
    raise DefinitionError(p for p in problems if p.code != "DF115" or p.place not in words)


def _path(document: Document, detail: ErrorDetails) -> tuple[str | int, ...]:
    """Where an error is, without the parts (union tags, `[key]`) that are not in the file."""
    path: tuple[str | int, ...] = ()
    for step in detail["loc"]:
        here = document.at(path)
        is_there = (isinstance(here, Mapping) and step in here) or (isinstance(here, list) and isinstance(step, int))
        if is_there or (step == detail["loc"][-1] and detail["type"] == "missing"):
            path = (*path, step)
    return path


def _problem(kind: type[BaseModel], document: Document, path: tuple[str | int, ...], detail: ErrorDetails) -> Problem:
    last = next((str(part) for part in reversed(path) if isinstance(part, str)), "the file")
    context: dict[str, Any] = detail.get("ctx") or {}
    is_key = "[key]" in detail["loc"]
    place = document.place(path, key=is_key or detail["type"] in ("extra_forbidden", "missing"))
    match detail["type"]:
        case "extra_forbidden":
            fix = did_you_mean(last, _known_keys(kind, path[:-1]))
            return Problem("DF111", f"{last!r} is not known here", place, "", fix)
        case "missing":
            owner = str(path[-2]) if len(path) > 1 else "the file"
            return Problem("DF112", f"{owner!r} lacks {last!r}", document.place(path[:-1], key=True), "", f"{last}: …")
        case "step_kind":
            fix = "one of node: …, pipeline: … and steps: …"
            code = "DF112" if detail["msg"] == "does nothing" else "DF115"
            return Problem(code, f"{last!r} {detail['msg']}", document.place(path, key=True), "", fix)
        case "string_pattern_mismatch" if is_key:
            why = "a name has letters, digits and _, begins with no digit, and is at most 63 long"
            return Problem("DF113", f"{last!r} is not a name", place, why)
        case "literal_error":
            fix = did_you_mean(str(document.at(path)), re.findall(r"'([^']*)'", str(context.get("expected", ""))))
            return Problem("DF114", f"{last}: {str(document.at(path))!r} is not one of the known words", place, "", fix)
        case "value_error" | "assertion_error":
            return Problem("DF115", f"{last}: {detail['msg'].partition(', ')[2] or detail['msg']}", place)
        case _:
            return Problem("DF115", f"{last}: {_words(detail['type'], context)}", place)


def _words(kind: str, context: dict[str, Any]) -> str:
    known = {
        "string_type": "wants text", "dict_type": "wants a mapping", "model_type": "wants a mapping",
        "list_type": "wants a list", "tuple_type": "wants a list", "string_pattern_mismatch": "is not well formed",
        "too_short": "wants at least one entry", "model_attributes_type": "wants a mapping",
    }  # fmt: skip
    if kind in known:
        return known[kind]
    limits = ", ".join(f"{word} {context[key]}" for key, word in _LIMITS.items() if key in context)
    return f"wants a value {limits}" if limits else "does not fit here"


_LIMITS = {"ge": "of at least", "le": "of at most", "gt": "above", "lt": "below"}


def _known_keys(kind: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand at `path`, following the declarations' own annotations."""
    models = {kind}
    for step in path:
        found = {m for model in models for m in _models_of(_annotation(model, step))}
        models = found or models
    return sorted({f.alias or n for model in models for n, f in model.model_fields.items()})


def _annotation(model: type[BaseModel], step: str | int) -> object:
    for name, info in model.model_fields.items():
        if step in (name, info.alias):
            return info.annotation
    return None


def _models_of(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_of(inner)
