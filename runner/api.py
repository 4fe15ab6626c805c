"""The composition: each act of dfrun in a few lines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.catalog import Catalog, build_catalog
from runner.declarations import kind_of, load_models, load_pipeline
from runner.errors import DefinitionError, Problem
from runner.graph import build_graph
from runner.source import Document, read_document
from schemas.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Checked:
    """A file in which nothing is wrong: what it is, and how many models or steps it has."""

    path: Path
    kind: str
    size: int


def check(path: Path) -> list[Checked]:
    """Text, declarations, graph and types of a file, or of every YAML file of a folder; offline.

    Raises `DefinitionError` with the problems of all of them.
    """
    files = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path]
    if not files:
        raise DefinitionError(Problem("DF101", f"{path}: there is no YAML file in this folder"))
    checked: list[Checked] = []
    problems: list[Problem] = []
    for file in files:
        try:
            checked.append(_check_file(file))
        except DefinitionError as error:
            problems += error.problems
    if problems:
        raise DefinitionError(problems)
    return checked


def _check_file(path: Path) -> Checked:
    document = read_document(path, shown(path))
    kind = kind_of(document)
    if kind == "models":
        models = load_models(document)
        build_catalog([(document, models)])
        return Checked(path, kind, len(models.models))
    if kind == "pipeline":
        pipeline = load_pipeline(document)
        build_graph(document, pipeline, load_catalog(path, pipeline, document), path.parent)
        return Checked(path, kind, len(pipeline.steps))
    what = "this file is neither models nor a pipeline"
    why = "a file says what it is by its top-level keys: `models:` with the models, or `steps:`"
    raise DefinitionError(Problem("DF110", what, document.place(()), why))


def load_catalog(path: Path, pipeline: Pipeline, document: Document) -> Catalog:
    """The models of a pipeline: those it names, else the nearest `models.yaml` upward; none where there is none."""
    if pipeline.models:
        named = [path.parent / name for name in pipeline.models]
        for file in named:
            if not file.is_file():
                what = f"there is no file {shown(file)!r}"
                raise DefinitionError(Problem("DF101", what, document.place(("models",)), "", "check the path"))
        return _catalog(named)
    found = next((f for f in (p / "models.yaml" for p in path.resolve().parents) if f.is_file()), None)
    return _catalog([found] if found else [])


def _catalog(files: Sequence[Path]) -> Catalog:
    documents = [read_document(file, shown(file)) for file in files]
    return build_catalog([(document, load_models(document)) for document in documents])


def shown(path: Path) -> str:
    """The path as messages show it: relative to where the user stands, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
