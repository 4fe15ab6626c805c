"""Text files as steps read and write them: found or refused with a clear word, written whole or not at all."""

from __future__ import annotations

import codecs
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runner.errors import Problem, StepError
from runner.evaluate import matches
from runner.nodes.arguments import read_under
from runner.nodes.base import Subject
from schemas.filters import Filter, parse_filter
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.shapes import ModelShape
from schemas.types import Connection, ValueProblem, ValueType
from schemas.values import ValueDeclaration, read_value_declaration

STRING = ValueType("string")
PATH = Port("path", STRING, True, help="relative paths start at the pipeline's folder")
TO_PATH = Port("path", STRING, help=PATH.help)
ENCODING = Port("encoding", STRING, default="utf-8", literal=True, help="a byte-order mark is taken off")
MODEL = Port("model", STRING, literal=True, help="the rows are typed as this model")
FIELDS = Port(
    "fields", ValueType("list", items=STRING), literal=True, shape="field_list", help="only these of the model"
)
COLUMNS = Port(
    "columns",
    ValueType("json"),
    literal=True,
    shape="column_types",
    help="name: type for each column, instead of a model",
)
RENAME = Port("rename", ValueType("json"), literal=True, shape="column_types", help="name in the file: name here")
MISSING_COLUMNS = Port(
    "missing_columns", ValueType("enum", values=("error", "null")), default="error", literal=True,
    help="whether a column that the file lacks is an error, or null (its default) in every row",
)  # fmt: skip
REJECTS = Port(
    "rejects", ValueType("enum", values=("error", "collect")), default="error", literal=True,
    help="rows that do not fit: fail, or set them (and those that break a check) aside in the output `rejects`",
)  # fmt: skip
MAX_REJECTS = Port("max_rejects", ValueType("integer"), help="more rejects than this fail the step")


def open_text(path: Path, encoding: str) -> IO[str]:
    """The file, open for reading with its line ends as they are. Raises `StepError` DF530 (class not_found)."""
    try:
        _refuse_device(path, "DF530")
        return path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")
    except FileNotFoundError:
        what, why = f"there is no file {shown(path)!r}", "relative paths start at the pipeline's folder"
        raise StepError(Problem("DF530", what, None, why, "correct path"), "not_found") from None
    except PermissionError:
        what = f"the file {shown(path)!r} may not be read"
        raise StepError(Problem("DF530", what, None, "", "give this user the right to read it")) from None


def shown(path: Path) -> str:
    """The path as messages show it: relative to where the user stands, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _refuse_device(path: Path, code: str) -> None:
    """A folder is no file, a pipe would be waited for without an end, and a device would be replaced by a file."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        noun = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise StepError(Problem(code, f"{shown(path)!r} is {noun}", None, "", "name a file"))


def undecodable(path: Path, encoding: str) -> Problem:
    """DF533: the line of the first byte that is not in the encoding, and what the file may be in."""
    number, start, decoder = 0, b"", codecs.getincrementaldecoder(encoding)()
    with path.open("rb") as file, suppress(UnicodeDecodeError):
        for line in file:
            number, start = number + 1, start or line[:2]
            decoder.decode(line)
    guess = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
    fix = f"name the file's encoding, such as encoding: {guess}"
    return Problem("DF533", f"line {number}: a byte that is not {encoding}", None, "guessing would garble names", fix)


@contextmanager
def whole_file(path: Path, encoding: str | None) -> Iterator[IO[Any]]:
    """A file to write that appears under `path` when the block ends well, and not at all otherwise.

    encoding: of a text file; None for bytes.
    """
    try:
        if path.exists():
            _refuse_device(path, "DF535")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        what = f"the file {shown(path)!r} cannot be written: {error.strerror}"
        raise StepError(Problem("DF535", what)) from None
    try:
        with (
            os.fdopen(descriptor, "wb")
            if encoding is None
            else os.fdopen(descriptor, "w", encoding=encoding, newline="")
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)  # mkstemp's own mode is for its owner alone
        Path(name).replace(path)
    except UnicodeEncodeError as error:
        raise StepError(
            Problem("DF536", f"a character is not in {error.encoding}", None, "", "encoding: utf-8")
        ) from None
    except OSError as error:
        raise StepError(Problem("DF535", f"the file {shown(path)!r} cannot be written: {error.strerror}")) from None
    finally:
        Path(name).unlink(missing_ok=True)


def read_encoding(arguments: Mapping[str, object]) -> str:
    """The encoding's name in Python's spelling. Raises `ValueProblem` for an unknown one."""
    name = str(arguments.get("encoding", "utf-8"))
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ValueProblem(f"there is no encoding {name!r}", ("encoding",), fix="utf-8, latin-1, cp1252, …") from None


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a file as the pipeline sees them: their types, the names they have in the file, what stands in for
    a column that the file lacks, and the checks of the model's fields, by position."""

    types: Mapping[str, ValueType]
    names: Mapping[str, str]
    stand_ins: Mapping[str, object]
    may_lack: bool = False
    checks: tuple[tuple[int, str, Filter], ...] = ()

    def judge(self, row: Sequence[object]) -> None:
        """Raises `ValueProblem` for a row that breaks a field's check. As in a database, a null breaks none."""
        for position, name, tree in self.checks:
            if row[position] is not None and not matches(tree, {name: row[position]}):
                raise ValueProblem("breaks the field's check", (name,))


def read_layout(arguments: Mapping[str, object], subject: Subject) -> Layout:
    """What `model` (with `fields`) or `columns`, `rename` and `missing_columns` say.

    Raises `ValueProblem`, or a group of them.
    """
    if ("model" in arguments) == ("columns" in arguments):
        what = (
            "wants a model or columns"
            if "model" not in arguments
            else "a model and columns are two ways to say one thing"
        )
        raise ValueProblem(
            what, kind="shape", why="every column has a type", fix="model: Name, or columns: {name: string}"
        )
    may_lack = arguments.get("missing_columns", "error") == "null"
    if "model" in arguments:
        types, stand_ins = _of_model(arguments, subject)
        # without `collect`, a check is left to the step that writes: it may set such rows aside itself
        collects = arguments.get("rejects") == "collect"
        checks = tuple(_checks(subject.models[str(arguments["model"])], types)) if collects else ()
    else:
        types = read_under("columns", lambda: declared_types(arguments["columns"]))
        stand_ins, checks = {}, ()
    names = {name: name for name in types}
    rename = arguments.get("rename", {})
    if not isinstance(rename, Mapping):
        raise ValueProblem("wants a mapping: name in the file, name here", ("rename",), kind="shape")
    for there, here in rename.items():
        if here not in types:
            fix = "one of: " + ", ".join(types)
            raise ValueProblem(f"{str(here)!r} is not a column here", ("rename", there), kind="name", fix=fix)
        names[str(here)] = str(there)
    return Layout(types, names, stand_ins, may_lack, checks)


def _checks(model: ModelShape, types: Mapping[str, ValueType]) -> Iterator[tuple[int, str, Filter]]:
    for position, name in enumerate(types):
        check = model.fields[name].check
        if check is not None:
            yield position, name, parse_filter({name: check}, {name: model.fields[name].type})


def _of_model(arguments: Mapping[str, object], subject: Subject) -> tuple[dict[str, ValueType], dict[str, object]]:
    from difflib import get_close_matches

    from schemas.shapes import NO_DEFAULT

    name = arguments["model"]
    if not isinstance(name, str) or name not in subject.models:
        close = get_close_matches(str(name), subject.models, n=1)
        fix = f"did you mean {close[0]}?" if close else "one of: " + ", ".join(subject.models)
        raise ValueProblem(f"there is no model {str(name)!r}", ("model",), kind="name", fix=fix)
    writable = subject.models[name].writable
    wanted = arguments.get("fields", list(writable))
    if not isinstance(wanted, list):
        raise ValueProblem("wants a list of fields", ("fields",), kind="shape")
    for index, field in enumerate(wanted):
        if field not in writable:
            fix = "one of: " + ", ".join(writable)
            raise ValueProblem(f"{name} has no field {str(field)!r} to write", ("fields", index), kind="name", fix=fix)
    stand_ins = {str(f): writable[f].default for f in wanted if writable[f].default is not NO_DEFAULT}
    return {str(f): writable[f].type for f in wanted}, stand_ins


def declared_types(raw: object) -> dict[str, ValueType]:
    """The types that a mapping of names to declarations says. Raises `ValueProblem`."""
    from pydantic import ValidationError

    if not isinstance(raw, Mapping) or not raw:
        raise ValueProblem(
            "wants a mapping of column names to types", kind="shape", fix="{sku: string, price: decimal?}"
        )
    types: dict[str, ValueType] = {}
    for name, declared in raw.items():
        try:
            types[str(name)] = ValueDeclaration.model_validate(read_value_declaration(declared)).value_type()
        except ValidationError:
            what = "is not a type"
            raise ValueProblem(what, (str(name),), fix="string, integer, decimal, date, datetime, boolean, …") from None
    return types


def read_word(arguments: Mapping[str, object], port: Port) -> str:
    """The text of a literal port, its default without one."""
    value = (
        read_under(port.name, lambda: parse_value(port.type, arguments[port.name]))
        if port.name in arguments
        else port.default
    )
    return str(value)


def read_switch(arguments: Mapping[str, object], name: str) -> bool:
    """A switch of a literal port, off without it."""
    return name in arguments and read_under(name, lambda: parse_value(ValueType("boolean"), arguments[name])) is True


def read_character(arguments: Mapping[str, object], port: Port) -> str:
    """One character. Raises `ValueProblem` for more or fewer."""
    text = read_word(arguments, port)
    if len(text) != 1:
        raise ValueProblem("wants one character", (port.name,), kind="shape")
    return text


def read_path(arguments: Mapping[str, object]) -> object:
    """The text of `path`, a connection before the run."""
    value = read_under("path", lambda: parse_value(STRING, arguments.get("path")))
    return value if isinstance(value, Connection) else str(value)


def read_max_rejects(arguments: Mapping[str, object], collects: bool) -> int | None:
    """How many rejects are allowed; None: any number."""
    if "max_rejects" not in arguments:
        return None
    if not collects:
        raise ValueProblem("max_rejects needs rejects: collect", ("max_rejects",), kind="shape")
    value = read_under("max_rejects", lambda: parse_value(ValueType("integer"), arguments["max_rejects"]))
    if isinstance(value, int) and value < 0:
        raise ValueProblem("wants a whole number of at least 0", ("max_rejects",))
    return value if isinstance(value, int) else None
