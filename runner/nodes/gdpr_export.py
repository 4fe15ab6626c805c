"""`gdpr.export`: everything that is kept about one subject, into a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.data.cells import cell_text, json_value
from runner.errors import Problem, StepError
from runner.nodes.arguments import read_deleted, read_under
from runner.nodes.base import Checked, Context
from runner.nodes.base import Subject as NodeSubject
from runner.nodes.textfile import TO_PATH, read_path, whole_file
from runner.query import Deleted
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.shapes import ModelShape
from schemas.types import Connection, ValueProblem, ValueType

STRING, INTEGER, BOOLEAN = ValueType("string"), ValueType("integer"), ValueType("boolean")
MODEL = Port("model", STRING, True, literal=True, help="the subject's model")
FORMAT = Port(
    "format", ValueType("enum", values=("json", "csv")), default="json", literal=True,
    help="json: one file; csv: a folder with a file for each model",
)  # fmt: skip
INCLUDE = Port("include_deleted", BOOLEAN, default=True, literal=True, help="softly deleted rows, too")
ANONYMIZE = Port(
    "anonymize_fields", ValueType("list", items=STRING), literal=True, shape="field_list",
    help="Model.field or field: given as *** (another person's, say)",
)  # fmt: skip
HIDDEN = "***"


def subject_ports(arguments: Mapping[str, object], subject: NodeSubject, more: Sequence[Port]) -> dict[str, Port]:
    """The ports that name a subject, and a node's own. Raises `ValueProblem` for a model that is not there."""
    kind = ValueType("any")
    if "model" in arguments:
        model = subject_model(arguments, subject)
        kind = model.fields[model.primary_key[0]].type
    ports = (MODEL, Port("id", kind, True, help="the subject's primary key"), *more)
    return {port.name: port for port in ports}


def subject_model(arguments: Mapping[str, object], subject: NodeSubject) -> ModelShape:
    """The model that `model` names."""
    name = str(read_under("model", lambda: parse_value(STRING, arguments["model"])))
    if name not in subject.models:
        from runner.errors import did_you_mean

        fix = did_you_mean(name, subject.models)
        raise ValueProblem(f"there is no model {name!r}", ("model",), kind="name", fix=fix)
    model = subject.models[name]
    if len(model.primary_key) > 1:
        raise ValueProblem(f"the key of {name} has parts", ("model",), kind="shape", why="a subject has one key")
    return model


def subject_key(arguments: Mapping[str, object], model: ModelShape) -> object:
    """The key of the subject, a connection until it arrives."""
    kind = model.fields[model.primary_key[0]].type
    return read_under("id", lambda: parse_value(kind, arguments["id"]))


@dataclass(frozen=True, slots=True)
class Export:
    """Whose rows go where."""

    models: Mapping[str, ModelShape]
    model: ModelShape
    key: object
    path: object
    format: str
    deleted: Deleted
    hidden: frozenset[str]


class GdprExport:
    """Takes a subject and a path; gives `path` and how many rows of which models are in it."""

    name = "gdpr.export"
    summary = "Write everything that is kept about a subject to a file: its row, and all rows that lead to it."
    uses_database = True
    writes = False
    is_repeatable = False

    def ports(self, subject: NodeSubject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return subject_ports(arguments, subject, (TO_PATH_REQUIRED, FORMAT, INCLUDE, ANONYMIZE))

    def check(self, arguments: Mapping[str, object], subject: NodeSubject) -> Checked:
        model = subject_model(arguments, subject)
        form = str(read_under("format", lambda: parse_value(FORMAT.type, arguments.get("format", "json"))))
        deleted = read_deleted(arguments) if "include_deleted" in arguments else "included"
        hidden = _hidden(arguments.get("anonymize_fields", []), subject.models)
        members = {"path": STRING, "rows": INTEGER, "models": ValueType("json")}
        path = read_path(arguments)
        export = Export(subject.models, model, subject_key(arguments, model), path, form, deleted, hidden)
        return Checked(ValueType("record", fields=members), export)

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        import asyncio

        from runner.subjects import find_subject

        assert isinstance(parsed, Export)
        assert not isinstance(parsed.key, Connection)
        found = await find_subject(context.access, parsed.models, parsed.model, parsed.key, parsed.deleted)
        if not found.rows:
            what = f"{parsed.model.name}: there is no such row"
            raise StepError(Problem("DF511", what, None, "", "is the key that of a subject?"), "not_found")
        rows = {
            name: [{n: _shown(name, n, v, parsed.hidden) for n, v in row.items()} for row in rows]
            for name, rows in found.rows.items()
        }
        write = _write_json if parsed.format == "json" else _write_csv
        await asyncio.to_thread(write, context.project / str(parsed.path), rows)
        context.progress(found.count)
        counts = {name: len(listed) for name, listed in rows.items()}
        return {"path": str(parsed.path), "rows": found.count, "models": counts}


TO_PATH_REQUIRED = Port("path", TO_PATH.type, True, help="the file, or the folder for csv", shape=TO_PATH.shape)


def _hidden(raw: object, models: Mapping[str, ModelShape]) -> frozenset[str]:
    if not isinstance(raw, list):
        raise ValueProblem("wants a list of fields", ("anonymize_fields",), kind="shape")
    known = {f"{model.name}.{name}" for model in models.values() for name in model.fields}
    known |= {name for model in models.values() for name in model.fields}
    for index, name in enumerate(raw):
        if name not in known:
            from runner.errors import did_you_mean

            fix = did_you_mean(str(name), known)
            raise ValueProblem(f"there is no field {str(name)!r}", ("anonymize_fields", index), kind="name", fix=fix)
    return frozenset(map(str, raw))


def _shown(model: str, name: str, value: object, hidden: frozenset[str]) -> object:
    return HIDDEN if value is not None and (name in hidden or f"{model}.{name}" in hidden) else value


def _write_json(path: Path, rows: Mapping[str, list[dict[str, Any]]]) -> None:
    with whole_file(path, "utf-8") as file:
        json.dump(rows, file, ensure_ascii=False, indent=2, default=json_value)
        file.write("\n")


def _write_csv(folder: Path, rows: Mapping[str, list[dict[str, Any]]]) -> None:
    for name, listed in rows.items():
        with ExitStack() as stack:
            file = stack.enter_context(whole_file(folder / f"{name}.csv", "utf-8"))
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([cell_text(column) for column in listed[0]])
            writer.writerows([[cell_text(value) for value in row.values()] for row in listed])


KIND = GdprExport()
