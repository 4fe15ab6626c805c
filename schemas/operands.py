"""Operands that columns and JSON paths read alike: texts, patterns, lists, divisors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from schemas.base import Scalar
from schemas.parsing import parse_value
from schemas.paths import nearest
from schemas.patterns import parse_like, parse_pattern
from schemas.types import Connection, Delivered, ValueProblem, ValueType, widens

_TEXT = ValueType("string")


def refuse(problems: Sequence[ValueProblem]) -> None:
    """Raises all of them as one; nothing when there are none."""
    found = [each for problem in problems for each in problem.all()]
    if found:
        for each in found:
            each.others = ()
        found[0].others = tuple(found[1:])
        raise found[0]


def filled(raw: object, operator: str) -> Mapping[str, object]:
    """The operand as a mapping that is not empty."""
    if not isinstance(raw, Mapping) or not raw:
        raise ValueProblem(f"{operator} wants a mapping that is not empty", kind="shape")
    return raw


def items_of(raw: object) -> list[object] | None:
    """The items of a list, each of them still to be judged; None for anything else (a text is no list of letters)."""
    if isinstance(raw, Delivered):
        return [Delivered(item) for item in raw.value] if isinstance(raw.value, (list, tuple)) else None
    return list(raw) if isinstance(raw, (list, tuple)) else None


def element_type_fits(raw: Connection, kind: ValueType) -> None:
    """Raises `ValueProblem` unless the connection brings a list of values of `kind`, null among them."""
    wanted = ValueType("list", items=kind.optional())
    items = raw.type.items
    is_text_for_enum = kind.kind == "enum" and items is not None and items.kind in ("string", "text")
    if not widens(raw.type, wanted) and not (raw.type.kind == "list" and is_text_for_enum):
        raise ValueProblem(f"{raw.text!r} is {raw.type}, wanted {wanted}", kind="connection")


def read_options(pattern: object, beside: Mapping[str, object]) -> object:
    """The operand of `$regex` as (pattern, options)."""
    return parse_value(_TEXT, pattern), parse_value(_TEXT, beside.get("$options", Scalar("")))


def text_operand(operator: str, raw: object) -> object:
    """The operand of an operator on texts: a text, or a `Pattern` for those that are one.

    Patterns with a connection in them stay as they are until the values are there.
    """
    if operator == "$regex":
        assert isinstance(raw, tuple), "$regex is read with its options"
        text, flags = raw
        return parse_pattern(text, flags) if isinstance(text, str) and isinstance(flags, str) else raw
    text = parse_value(_TEXT, raw)
    if not isinstance(text, str) or operator not in ("$like", "$ilike"):
        return text
    return parse_like(text, is_folded=operator == "$ilike")


_WHOLE = re.compile(r"[-+]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][-+]?[0-9]{1,2})?")


def by_value(raw: object) -> object:
    """The whole number that is written with a fraction of nought or an exponent, such as `30.0`; all else as it is."""
    if not isinstance(raw, Scalar) or not raw.plain or not _WHOLE.fullmatch(raw):
        return raw
    value = Decimal(raw)
    return Scalar(str(int(value))) if value == value.to_integral_value() else raw


def divisor_and_remainder(raw: object) -> object:
    """The operand of `$mod`."""
    listed = items_of(raw)
    if listed is None or len(listed) != 2:
        raise ValueProblem("$mod wants [divisor, remainder]", kind="shape")
    values: list[object] = []
    for index, item in enumerate(listed):
        try:
            values.append(parse_value(ValueType("integer"), item))
        except ValueProblem as problem:
            raise problem.under(index) from None
    if values[0] == 0:
        raise ValueProblem("$mod: a division by 0", (0,))
    return tuple(values)


def unknown_operator(operator: str, known: tuple[str, ...]) -> ValueProblem:
    """What to say of a key that is no operator here."""
    if operator.startswith("$"):
        what = f"there is no operator {operator!r} here"
        return ValueProblem(what, key=True, kind="name", fix=nearest(operator, known))
    return ValueProblem(f"{operator!r} stands beside operators", key=True, kind="shape")
