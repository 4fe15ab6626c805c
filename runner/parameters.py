"""The values a run starts with: parameters from the command line and from a file, secrets from their sources."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.errors import DefinitionError, Problem, UnreachableError, did_you_mean
from runner.evaluate import matches
from runner.source import Document, parse_document
from schemas.base import Scalar
from schemas.filters import parse_filter
from schemas.parsing import parse_value
from schemas.pipeline import Param, Pipeline, Secret
from schemas.types import ValueProblem, ValueType

_TREES = ("list", "json", "record", "rows")


def read_parameters(
    pipeline: Pipeline, texts: Sequence[str], file: Document | None, document: Document
) -> dict[str, object]:
    """The value of every parameter by its name; those that nobody gave have their default, or None.

    texts: `name=value` as given with `-p`; they win over the file. A value is read by the parameter's type: lists and
    json as YAML, all else as it stands, `null` as null where null is allowed and the type is no text.

    Raises `DefinitionError` DF402 to DF406 with every problem.
    """
    problems: list[Problem] = []
    values: dict[str, object] = {}
    given = _from_file(pipeline, file, problems) | _from_texts(pipeline, texts, problems)
    for name, param in pipeline.params.items():
        kind = param.value_type()
        if name not in given:
            if param.required:
                place = document.place(("params", name), key=True)
                problems.append(
                    Problem("DF403", f"the parameter {name!r} ({kind}) is required", place, "", f"-p {name}=…")
                )
            else:
                values[name] = _default(param, kind)
            continue
        raw, where = given[name]
        try:
            values[name] = parse_value(kind, raw)
            _check(name, param, values[name])
        except ValueProblem as problem:
            path = ".".join(map(str, (name, *problem.path)))
            at = where.place((name, *problem.path)) if where else None
            problems.append(Problem("DF404", f"parameter {path}: {problem.what}", at, problem.why, problem.fix))
    if problems:
        raise DefinitionError(problems)
    return values


def recorded_parameters(pipeline: Pipeline, kept: Mapping[str, object], document: Document) -> dict[str, object]:
    """The values that a run began with; parameters that are new in the file have their defaults.

    Raises `DefinitionError` DF403 for a new one without a default.
    """
    values: dict[str, object] = {}
    for name, param in pipeline.params.items():
        if name in kept:
            values[name] = kept[name]
        elif param.required:
            place = document.place(("params", name), key=True)
            why = "the run began without it"
            raise DefinitionError(
                Problem("DF403", f"the parameter {name!r} is required", place, why, "give it a default")
            )
        else:
            values[name] = _default(param, param.value_type())
    return values


def read_secrets(secrets: Mapping[str, Secret], folder: Path) -> dict[str, str]:
    """The value of every secret. Raises `UnreachableError` DF421, naming the source and never a value."""
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for name, secret in secrets.items():
        if secret.env is not None:
            value = os.environ.get(secret.env)
            if value is None:
                what = f"secret {name!r}: the environment variable {secret.env} is not set"
                problems.append(Problem("DF421", what, None, "", f"export {secret.env}=…"))
            else:
                values[name] = value
            continue
        try:
            values[name] = (folder / str(secret.file)).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            problems.append(Problem("DF421", f"secret {name!r}: the file {secret.file} cannot be read"))
    if problems:
        raise UnreachableError(problems)
    return values


def _default(param: Param, kind: ValueType) -> object:
    return parse_value(kind, param.default) if "default" in param.model_fields_set else None


def _from_file(
    pipeline: Pipeline, file: Document | None, problems: list[Problem]
) -> dict[str, tuple[object, Document | None]]:
    if file is None:
        return {}
    for name in file.root:
        if name not in pipeline.params:
            problems.append(_unknown(name, pipeline, file))
    return {name: (raw, file) for name, raw in file.root.items() if name in pipeline.params}


def _from_texts(
    pipeline: Pipeline, texts: Sequence[str], problems: list[Problem]
) -> dict[str, tuple[object, Document | None]]:
    given: dict[str, tuple[object, Document | None]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            problems.append(Problem("DF406", f"-p {name!r}: wants name=value", None, "", f"-p {name}=…"))
        elif name not in pipeline.params:
            problems.append(_unknown(name, pipeline, None))
        elif name in given:
            problems.append(Problem("DF406", f"-p {name}: given twice"))
        else:
            try:
                given[name] = (_read_text(pipeline.params[name].value_type(), value), None)
            except DefinitionError as error:
                what = error.problems[0].what
                problems.append(Problem("DF404", f"parameter {name}: {what}", None, "it is read as YAML"))
    return given


def _read_text(kind: ValueType, text: str) -> object:
    if kind.kind in _TREES:
        return parse_document(f"value: {text}".encode(), "-p").root["value"]
    if text == "null" and kind.nullable and kind.kind not in ("string", "text", "enum"):
        return None
    return Scalar(text)


def _unknown(name: str, pipeline: Pipeline, file: Document | None) -> Problem:
    place = file.place((name,), key=True) if file else None
    fix = did_you_mean(name, pipeline.params) or "it takes no parameters"
    return Problem("DF402", f"{pipeline.name} has no parameter {name!r}", place, "", fix)


def _check(name: str, param: Param, value: object) -> None:
    if param.check is None or value is None:
        return
    tree = parse_filter({name: param.check}, {name: param.value_type()})
    if not matches(tree, {name: value}):
        raise ValueProblem("breaks the parameter's check", why=f"check: {_written(param.check)}")


def _written(tree: object) -> str:
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key}: {_written(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(_written(value) for value in tree) + "]"
    return str(tree)
