"""A pipeline from its files, or from what the ledger kept of them: read, checked, ready to be planned."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.catalog import Catalog, build_catalog
from runner.declarations import kind_of, load_migration, load_models, load_pipeline, load_settings
from runner.errors import DefinitionError, Problem
from runner.graph import Graph, Parts, build_graph
from runner.source import Document, parse_document, read_document
from runner.tenants import check_tenant
from schemas.pipeline import Pipeline
from schemas.settings import Settings

if TYPE_CHECKING:
    from runner.migrate.written import Written

STANDARD_INPUT = Path("-")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pipeline that was read and checked. `home` is its folder, where relative paths start; `project` is the folder
    of `dfrun.yaml` or `models.yaml`, else `home`. `identity` is a hash of the definition and its models; `texts` holds
    each of their files by its path."""

    document: Document
    pipeline: Pipeline
    catalog: Catalog
    graph: Graph
    home: Path
    project: Path
    settings: Settings
    identity: str
    path: Path
    texts: Mapping[str, str]


class Texts:
    """The texts of a definition's files: from the disk, or as they were recorded."""

    def __init__(self, recorded: Mapping[str, str] | None = None) -> None:
        self._recorded = recorded
        self.seen: dict[str, str] = {}

    def is_there(self, path: Path) -> bool:
        """Whether there is such a file."""
        return path.is_file() if self._recorded is None else str(path.absolute()) in self._recorded

    def read(self, path: Path) -> Document:
        """The document at `path`. Raises `DefinitionError`."""
        key = _key(path)
        if self._recorded is not None and key in self._recorded:
            document = parse_document(self._recorded[key].encode(), shown(path))
        else:
            document = read(path)
        self.seen[key] = document.text
        return document


def load(path: Path) -> Loaded:
    """A pipeline, read and checked. Raises `DefinitionError` with all problems of the first file that has some."""
    return _load_from(Texts(), path)


def load_recorded(definition: str, folder: Path) -> Loaded:
    """The pipeline that `definition_of` kept, whose files may have changed since, or be gone."""
    kept = json.loads(definition)
    return _load_from(Texts(kept["texts"]), Path(kept["path"]), folder)


def definition_of(loaded: Loaded) -> str:
    """What the ledger keeps of a pipeline: the texts of its files."""
    path = loaded.path if loaded.path == STANDARD_INPUT else loaded.path.absolute()
    return json.dumps({"path": str(path), "texts": dict(loaded.texts)}, ensure_ascii=False)


def changed_steps(before: Loaded, now: Loaded) -> list[str]:
    """The steps that are not as they were, and `models` when a model is not."""
    steps = {*before.pipeline.steps, *now.pipeline.steps}
    changed = [n for n in steps if before.document.at(("steps", n)) != now.document.at(("steps", n))]
    models = [{name: text for name, text in each.texts.items() if name != str(each.path.absolute())}
              for each in (before, now)]  # fmt: skip
    return sorted(changed) + (["models"] if models[0] != models[1] else [])


def _load_from(texts: Texts, path: Path, folder: Path | None = None) -> Loaded:
    document = texts.read(path)
    if kind_of(document) != "pipeline":
        what = "this file is not a pipeline"
        raise DefinitionError(Problem("DF110", what, document.place(()), "a pipeline has `steps:` at its top level"))
    return load_document(path, document, texts, folder)


def load_document(path: Path, document: Document, texts: Texts | None = None, folder: Path | None = None) -> Loaded:
    """The pipeline of a document, with the files that it names."""
    texts = texts or Texts()
    texts.seen[_key(path)] = document.text
    pipeline = load_pipeline(document)
    home = folder or (Path.cwd() if path == STANDARD_INPUT else path.resolve().parent)
    documents = [texts.read(file) for file in model_files(home, pipeline, document, texts)]
    settings, project = settings_of(home)
    is_secured = settings.tenancy == "database"
    catalog = build_catalog([(models, load_models(models)) for models in documents], row_security=is_secured)

    def other(beside: Path, name: str) -> Parts:
        file = (beside / name).resolve()
        if not texts.is_there(file):
            raise DefinitionError(Problem("DF101", f"there is no file {name!r}", None, "", "check the path"))
        inner = texts.read(file)
        if kind_of(inner) != "pipeline":
            raise DefinitionError(Problem("DF110", f"{name} is not a pipeline", inner.place(())))
        declared = load_pipeline(inner)
        theirs = [texts.read(each) for each in model_files(file.parent, declared, inner, texts)]
        others = build_catalog([(each, load_models(each)) for each in theirs], row_security=is_secured)
        return inner, declared, others, file.parent

    graph = build_graph(document, pipeline, catalog, home, other, settings.http.hosts)
    if wrong := check_tenant(pipeline, document):
        raise DefinitionError(wrong)
    if pipeline.schedule is not None:
        from runner.schedule.check import check_schedule  # time zones are for those who have a schedule

        if wrong := check_schedule(pipeline, pipeline.schedule, document):
            raise DefinitionError(wrong)
    digest = hashlib.sha256()
    for text in texts.seen.values():
        digest.update(hashlib.sha256(text.encode()).digest())
    return Loaded(document, pipeline, catalog, graph, home, project, settings, digest.hexdigest(), path, texts.seen)


def _key(path: Path) -> str:
    return str(path if path == STANDARD_INPUT else path.absolute())


def settings_of(folder: Path) -> tuple[Settings, Path]:
    """The nearest `dfrun.yaml` upward, and the project's folder: that of `dfrun.yaml` or `models.yaml`, else the
    given one."""
    file = nearest(folder.resolve(), "dfrun.yaml")
    settings = load_settings(read(file)) if file else Settings()
    home = next((f.parent for f in (file, nearest(folder.resolve(), "models.yaml")) if f), folder.resolve())
    return settings, home


def model_files(home: Path, pipeline: Pipeline, document: Document, texts: Texts | None = None) -> list[Path]:
    """Those files of models that a pipeline names, else the nearest `models.yaml` upward; none where there is none."""
    is_there = (texts or Texts()).is_there
    if not pipeline.models:
        found = nearest(home, "models.yaml", is_there)
        return [found] if found else []
    named = [home / name for name in pipeline.models]
    for file in named:
        if not is_there(file):
            what = f"there is no file {shown(file)!r}"
            raise DefinitionError(Problem("DF101", what, document.place(("models",)), "", "check the path"))
    return named


def nearest(folder: Path, name: str, is_there: Callable[[Path], bool] = Path.is_file) -> Path | None:
    """The file of this name in the folder or the nearest one above it."""
    return next((f for f in (p / name for p in (folder, *folder.parents)) if is_there(f)), None)


def read(path: Path) -> Document:
    """The document at a path, `-` being standard input. Raises `DefinitionError`."""
    if path == STANDARD_INPUT:
        return parse_document(sys.stdin.buffer.read(), "-")
    return read_document(path, shown(path))


def shown(path: Path) -> str:
    """The path as messages show it: relative to where the user stands, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def written_files(project: Path) -> list[Written]:
    """The hand-written migrations of a project, in the order of their files' names."""
    files = sorted((project / "migrations").glob("*.yaml"))
    if not files:
        return []
    from runner.migrate.written import written_of

    documents = [read(file) for file in files]
    return [written_of(load_migration(d), d.text) for d in documents if kind_of(d) == "migration"]


def sources_of(catalog: Catalog, project: Path) -> dict[str, str]:
    """The file of each model, by its path in the project."""
    files = {model: place.file for (model, _), place in catalog.places.items()}
    return {model: os.path.relpath(file, project) for model, file in files.items()}
