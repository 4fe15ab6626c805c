"""`assert`: a value is as it should be, or the run stops here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from runner.errors import Problem, StepError
from runner.evaluate import matches
from runner.nodes.arguments import read_under
from runner.nodes.base import Checked, Context, Subject
from schemas.filters import All, Compare, Filter, Not, parse_filter
from schemas.nodes import Port
from schemas.parsing import parse_value
from schemas.types import Connection, Delivered, ValueProblem, ValueType

_ANY = ValueType("any", True)
_TESTS = {"equals": "$eq", "not_equals": "$ne", "min": "$gte", "max": "$lte"}
_ORDERED = ("string", "text", "integer", "float", "decimal", "date", "time", "datetime", "enum", "any")


@dataclass(frozen=True, slots=True)
class Assertion:
    """A value and what must hold for it. Connections stand in both until the run."""

    value: object
    tests: Mapping[str, object]
    condition: Filter
    message: object


class Assert:
    """Takes a value and what must hold; gives the value."""

    name = "assert"
    summary = "Stop the run unless a value is as it should be."
    uses_database = False
    writes = False
    is_repeatable = True

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return {
            "value": Port("value", _ANY, True, help="what is judged"),
            "equals": Port("equals", _ANY, help="it is this"),
            "not_equals": Port("not_equals", _ANY, help="it is not this"),
            "min": Port("min", _ANY, help="it is at least this"),
            "max": Port("max", _ANY, help="it is at most this"),
            "check": Port("check", ValueType("json"), help="operators of the filter language", shape="filter"),
            "message": Port("message", ValueType("string"), help="what to say when it does not hold"),
        }

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        raw = arguments.get("value")
        kind = _kind_of(raw)
        value = read_under("value", lambda: parse_value(_ANY, raw))
        if not any(name in arguments for name in (*_TESTS, "check")):
            fix = "one of: equals, not_equals, min, max, check"
            raise ValueProblem("nothing says what must hold", kind="shape", fix=fix)
        tests = {}
        for name in _TESTS:
            if name in arguments:
                tests[name] = read_under(name, lambda name=name: _operand(name, kind, arguments[name]))  # type: ignore[misc]
        condition: Filter = All()
        if "check" in arguments:
            condition = read_under("check", lambda: _condition(arguments["check"], kind))
        message = None
        if "message" in arguments:
            message = read_under("message", lambda: parse_value(ValueType("string"), arguments["message"]))
        output = ValueType("record", fields={"value": kind})
        return Checked(output, Assertion(value, tests, condition, message))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Assertion)
        for name, operand in parsed.tests.items():
            if not _holds(parsed.value, name, operand):
                raise _failure(parsed, f"the value is not {_WORDS[name]}")
        if not matches(parsed.condition, {"value": parsed.value}):
            raise _failure(parsed, "the value does not meet the check")
        return {"value": parsed.value}


_WORDS = {"equals": "what it must equal", "not_equals": "different", "min": "at least min", "max": "at most max"}


def _failure(assertion: Assertion, what: str) -> StepError:
    told = f"{assertion.message} ({what})" if assertion.message else what
    return StepError(Problem("DF520", told), "assertion")


def _kind_of(raw: object) -> ValueType:
    """The type of the judged value: the connection's, or what the literal looks like."""
    if isinstance(raw, Connection):
        return raw.type
    return raw.type if isinstance(raw, Delivered) and raw.type is not None else _ANY


def _operand(name: str, kind: ValueType, raw: object) -> object:
    if name in ("min", "max") and kind.kind not in _ORDERED:
        raise ValueProblem(f"{name} does not work on {kind.kind}", key=True, kind="name")
    if kind.kind == "enum":
        kind = ValueType("string", kind.nullable)
    wanted = kind.optional() if name in ("equals", "not_equals") else kind.required()
    if kind.kind in ("integer", "decimal"):
        wanted = replace(wanted, kind="decimal", precision=None, scale=None)
    return parse_value(wanted, raw, to_scale=False)


def _condition(raw: object, kind: ValueType) -> Filter:
    if kind.kind == "any":
        raise ValueProblem(
            "the type of the value is not known before the run", kind="shape", fix="use equals, min or max"
        )
    try:
        return parse_filter({"value": raw}, {"value": kind})
    except ValueProblem as problem:
        problem.path = problem.path[1:]
        raise


def _holds(value: object, name: str, operand: object) -> bool:
    if isinstance(operand, str) and not isinstance(value, str) and value is not None:
        return name == "not_equals"
    if name == "not_equals":
        return matches(Not(Compare("value", "$eq", operand)), {"value": value})
    word = {"equals": "$eq", "min": "$gte", "max": "$lte"}[name]
    try:
        return matches(Compare("value", word, operand), {"value": value})  # type: ignore[arg-type]
    except TypeError:
        problem = Problem("DF520", f"{name}: the two values are not of one kind")
        raise StepError(problem, "assertion") from None


KIND = Assert()
