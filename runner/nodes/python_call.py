"""`python.call`: a function of the user's; its annotations are its ports."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from uuid import UUID

from runner.data.rows import Rows, rows_of_mappings
from runner.errors import Problem, StepError, UndecidedError
from runner.nodes.arguments import STAND_IN, read_ports, read_stand_in
from runner.nodes.base import Checked, Context, External, Subject
from runner.nodes.textfile import read_switch
from schemas.nodes import NOTHING, Port
from schemas.parsing import deliver
from schemas.types import ValueProblem, ValueType

FUNCTION = Port("function", ValueType("string"), True, literal=True, help="package.module:name")
EXTERNAL = Port(
    "external", ValueType("boolean"), default=False, literal=True,
    help="it acts outside every database, which cannot be taken back",
)  # fmt: skip
IDEMPOTENT = Port(
    "idempotent", ValueType("boolean"), default=False, literal=True, help="an external call may be made again"
)
_OWN = {port.name: port for port in (FUNCTION, EXTERNAL, IDEMPOTENT, STAND_IN)}
KEY = "idempotency_key"
"""A parameter of this name gets, in an external call, a key that stays the same over attempts and resumes."""
_SIMPLE: dict[object, ValueType] = {
    str: ValueType("text"), int: ValueType("integer"), float: ValueType("float"), Decimal: ValueType("decimal"),
    bool: ValueType("boolean"), date: ValueType("date"), datetime: ValueType("datetime"), time: ValueType("time"),
    UUID: ValueType("uuid"), bytes: ValueType("bytes"), dict: ValueType("json"), list: ValueType("list"),
    Any: ValueType("any", True), object: ValueType("any", True), type(None): ValueType("json", True),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """The function, its arguments, and the type of what it gives."""

    function: Callable[..., Any]
    name: str
    arguments: Mapping[str, object]
    output: ValueType
    is_plain: bool
    takes_key: bool = False
    is_external: bool = False


class PythonCall:
    """Takes the function's parameters; gives its result: `result`, or the members of a TypedDict or dataclass."""

    name = "python.call"
    summary = "Call a Python function: its annotations are the ports. A blocking one runs in a thread."
    uses_database = False
    writes = True
    runs_dry = True
    is_repeatable = False

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        named = dict(_OWN)
        if "function" not in arguments:
            return named
        function = find_function(arguments["function"], subject.project)
        hints = _hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                what = f"the parameter {name!r} of {arguments['function']} cannot be a port"
                raise ValueProblem(what, ("function",), why="a port is a parameter with a name and a type")
            if name in _OWN:
                what = f"the parameter {name!r} of {arguments['function']} has the name of a port of python.call"
                raise ValueProblem(what, ("function",), kind="shape", fix="give it another name")
            if name == KEY and read_switch(arguments, "external"):
                continue
            if name not in hints:
                what = f"the parameter {name!r} of {arguments['function']} has no annotation"
                raise ValueProblem(what, ("function",), why="annotations are the types of the ports")
            kind = _type_of(hints[name], f"the parameter {name!r}")
            has_default = parameter.default is not parameter.empty
            named[name] = Port(name, kind, not has_default, NOTHING, "has a default" if has_default else "")
        return named

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        function = find_function(arguments["function"], subject.project)
        ports = self.ports(subject, arguments)
        values = {name: _wrapped(ports[name].type, value) for name, value in read_ports(ports, arguments).items()}
        for name in _OWN:
            values.pop(name, None)
        given = _hints(function).get("return", type(None))
        kind = _type_of(given, "the result")
        is_plain = kind.kind != "record" or kind.fields is None
        output = ValueType("record", fields={"result": kind}) if is_plain else kind
        call = Call(function, str(arguments["function"]), values, kind, is_plain)
        if not read_switch(arguments, "external"):
            for name in ("idempotent", "stand_in"):
                if name in arguments and (name != "idempotent" or read_switch(arguments, name)):
                    raise ValueProblem(f"{name} says something of external calls", (name,), kind="shape",
                                       fix="external: true")  # fmt: skip
            return Checked(output, call)
        call = dataclasses.replace(call, takes_key=KEY in inspect.signature(function).parameters, is_external=True)
        is_idempotent = read_switch(arguments, "idempotent")
        return Checked(
            output, call, external=External(f"calls {call.name}", is_idempotent, read_stand_in(arguments, output))
        )

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        import asyncio

        assert isinstance(parsed, Call)
        arguments = {name: await _plain(value) for name, value in parsed.arguments.items()}
        if parsed.takes_key:
            arguments[KEY] = context.external_key
        try:
            if inspect.iscoroutinefunction(parsed.function):
                result = await parsed.function(**arguments)
            else:
                result = await asyncio.to_thread(parsed.function, **arguments)
        except (TimeoutError, ConnectionError) as error:
            if not parsed.is_external:
                raise _raised(parsed.name, error) from error
            # no answer came: it may have been done
            raise UndecidedError(_raised(parsed.name, error).problem) from error
        except Exception as error:
            raise _raised(parsed.name, error) from error
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            result = dataclasses.asdict(result)
        try:
            value = await _typed(result, parsed.output)
        except ValueProblem as problem:
            where = ".".join(map(str, problem.path))
            what = f"{parsed.name} gave something else than it says: {where + ': ' if where else ''}{problem.what}"
            raise StepError(Problem("DF526", what)) from None
        return {"result": value} if parsed.is_plain else typing.cast("Mapping[str, object]", value)


def _raised(name: str, error: Exception) -> StepError:
    """What the user's code says may hold a row's values: the type and the place are enough to find it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return StepError(Problem("DF525", f"{name} raised {type(error).__name__}{where}"))


def _wrapped(kind: ValueType, value: object) -> object:
    """A secret as the SecretStr that the function asks for, so that printing it shows stars."""
    if kind.kind != "secret" or not isinstance(value, str):
        return value
    from pydantic import SecretStr

    return SecretStr(value)


async def _plain(value: object) -> object:
    """Rows as a list of mappings, which is what a function takes."""
    if isinstance(value, Rows):
        return [dict(zip(value.columns, row, strict=True)) async for batch in value.batches() for row in batch.rows]
    return value


async def _typed(value: object, kind: ValueType) -> object:
    if kind.kind == "rows":
        if not isinstance(value, (list, tuple)):
            raise ValueProblem("wants a list of mappings")
        items = [deliver(ValueType("record", fields=kind.fields), item) for item in value]
        columns = tuple(kind.fields) if kind.fields is not None else None
        return rows_of_mappings([typing.cast("dict[str, object]", item) for item in items], columns)
    if kind.kind == "record" and kind.fields is not None and isinstance(value, Mapping):
        return {name: await _typed(value.get(name), wanted) for name, wanted in kind.fields.items()}
    return deliver(kind, value)


def find_function(raw: object, project: Path) -> Callable[..., Any]:
    """The function that `package.module:name` names, looked for on the path and, last, in the project's folder.

    Raises `ValueProblem`; never puts the project first: its own `schemas/` must not shadow anything.
    """
    text = str(raw)
    module, colon, name = text.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ValueProblem(f"{text!r} names no function", ("function",), kind="shape", fix="package.module:name")
    if str(project) not in sys.path:
        sys.path.append(str(project))
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        what = f"there is no module {error.name!r}"
        raise ValueProblem(
            what, ("function",), kind="name", why="looked for on Python's path and in the pipeline's folder"
        ) from None
    except Exception as error:
        raise ValueProblem(f"importing {module!r} raised {type(error).__name__}", ("function",), kind="name") from None
    for part in name.split("."):
        if not hasattr(found, part):
            close = get_close_matches(part, dir(found), n=1)
            fix = f"did you mean {module}:{close[0]}?" if close else ""
            raise ValueProblem(f"{module!r} has no function {name!r}", ("function",), kind="name", fix=fix)
        found = getattr(found, part)
    if not callable(found):
        raise ValueProblem(f"{text!r} is no function", ("function",), kind="name")
    return typing.cast("Callable[..., Any]", found)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception as error:
        what = f"the annotations cannot be read ({type(error).__name__})"
        raise ValueProblem(what, ("function",), kind="shape") from None


def _type_of(hint: Any, where: str) -> ValueType:
    """The port type of an annotation. Raises `ValueProblem` for those that have none."""
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if getattr(hint, "__name__", "") == "SecretStr":
        return ValueType("secret")
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and type(None) in inner and len(inner) == 2:
        return _type_of(next(each for each in inner if each is not type(None)), where).optional()
    if origin is typing.Literal and all(isinstance(each, str) for each in inner):
        return ValueType("enum", values=inner)
    if origin is list:
        items = _type_of(inner[0], where)
        if items.kind == "record" or inner[0] is dict or typing.get_origin(inner[0]) is dict:
            return ValueType("rows", fields=items.fields)
        return ValueType("list", items=items)
    if origin is dict:
        return ValueType("json")
    if typing.is_typeddict(hint) or (dataclasses.is_dataclass(hint) and isinstance(hint, type)):
        fields = {name: _type_of(each, where) for name, each in typing.get_type_hints(hint).items()}
        return ValueType("record", fields=fields)
    what = f"{where} has an annotation that is no port type"
    fix = "str, int, float, Decimal, bool, date, datetime, UUID, bytes, list, dict, TypedDict, a dataclass, or T | None"
    raise ValueProblem(what, ("function",), kind="shape", fix=fix)


KIND = PythonCall()
