"""A scalar takes its type from the place where it stands."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import Scalar
from schemas.parsing import parse_value
from schemas.types import Connection, Delivered, Kind, ValueProblem, ValueType, widens

PRICE = ValueType("decimal", precision=12, scale=2)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ValueType("string"), "007", "007"),
        (ValueType("string"), "no", "no"),
        (ValueType("string"), "22:22", "22:22"),
        (ValueType("integer"), "-5", -5),
        (PRICE, "19.99", Decimal("19.99")),
        (PRICE, "1.500", Decimal("1.500")),
        (ValueType("boolean"), "true", True),
        (ValueType("date"), "2024-02-29", date(2024, 2, 29)),
        (ValueType("datetime"), "2024-01-01T10:00:00+02:00", datetime(2024, 1, 1, 8, tzinfo=UTC)),
        (ValueType("enum", values=("a", "b")), "b", "b"),
    ],
)
def test_the_place_decides_what_a_literal_is(kind: ValueType, text: str, value: object) -> None:
    assert parse_value(kind, Scalar(text)) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ValueType("integer"), "5.0"),
        (ValueType("boolean"), "yes"),
        (ValueType("date"), "2023-02-29"),
        (ValueType("datetime"), "tomorrow"),
        (PRICE, "19.999"),
        (PRICE, "99999999999"),
        (ValueType("string", max_length=3), "four"),
        (ValueType("integer"), "9223372036854775808"),
        (ValueType("enum", values=("a", "b")), "c"),
        (ValueType("float"), ".nan"),
        (ValueType("string"), "a\x00b"),
    ],
)
def test_a_literal_that_does_not_fit_is_refused(kind: ValueType, text: str) -> None:
    with pytest.raises(ValueProblem):
        parse_value(kind, Scalar(text))


def test_a_number_in_quotes_is_text() -> None:
    with pytest.raises(ValueProblem, match="wants a whole number"):
        parse_value(ValueType("integer"), Scalar("5", plain=False))


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=2))
def test_a_decimal_keeps_every_digit(value: Decimal) -> None:
    assert parse_value(PRICE, Scalar(str(value))) == value


def test_a_delivered_value_never_shows_in_the_message() -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_value(ValueType("integer"), Delivered("hunter2"))
    assert str(caught.value) == "wants a whole number, got text"


def test_a_connection_is_judged_by_its_type() -> None:
    slot = Connection("find.count", ValueType("integer"))
    assert parse_value(PRICE, slot) is slot
    with pytest.raises(ValueProblem, match=r"'find.count' is integer, wanted date"):
        parse_value(ValueType("date"), slot)


def test_a_nullable_value_does_not_flow_into_a_required_place() -> None:
    assert widens(PRICE, PRICE.optional())
    assert not widens(PRICE.optional(), PRICE)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_value_flows_into_a_place_of_its_own_type(kind: Kind) -> None:
    assert widens(ValueType(kind), ValueType(kind))
    assert widens(ValueType(kind, nullable=True), ValueType(kind, nullable=True))


def test_a_nought_has_no_sign() -> None:
    """PostgreSQL would keep it, SQLite would not."""
    for raw in (Scalar("-0.0"), Delivered(-0.0), Delivered(Decimal("-0.0"))):
        assert str(parse_value(ValueType("float"), raw)) == "0.0"
