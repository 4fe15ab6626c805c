"""A cell becomes the value it stands for, or says why not without showing itself; and back."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.cells import cell_reader, cell_text
from schemas.types import ValueProblem, ValueType

MONEY = ValueType("decimal", precision=6, scale=2)


@pytest.mark.parametrize(
    ("kind", "text", "options", "value"),
    [
        (ValueType("integer"), " 42 ", {}, 42),
        (ValueType("integer"), "-007", {}, -7),
        (ValueType("integer"), "9223372036854775807", {}, 2**63 - 1),
        (MONEY, "19.9", {}, Decimal("19.9")),
        (MONEY, "-19,99", {"decimal": ","}, Decimal("-19.99")),
        (ValueType("float"), "1e3", {}, 1000.0),
        (ValueType("boolean"), "Yes", {}, True),
        (ValueType("boolean"), "0", {}, False),
        (ValueType("date"), "2017-02-10", {}, date(2017, 2, 10)),
        (ValueType("date"), "10.2.2017", {"date_formats": ["%d.%m.%Y"]}, date(2017, 2, 10)),
        (ValueType("datetime"), "10/2/2017 9:56", {"date_formats": ["%m/%d/%Y %H:%M"]}, datetime(2017, 10, 2, 9, 56, tzinfo=UTC)),
        (ValueType("datetime"), "2 Oct 2017", {"date_formats": ["%Y", "%d %b %Y"]}, datetime(2017, 10, 2, tzinfo=UTC)),
        (ValueType("datetime"), "2017-10-02T09:56:00+02:00", {}, datetime(2017, 10, 2, 7, 56, tzinfo=UTC)),
        (ValueType("string"), "'=1+1", {}, "=1+1"),
        (ValueType("string"), "'=1+1", {"guarded": False}, "'=1+1"),
        (ValueType("string"), "'tis", {}, "'tis"),
        (ValueType("string", True), "", {}, None),
        (ValueType("string", True), "NA", {"null": "NA"}, None),
        (ValueType("string"), " kept ", {}, " kept "),
        (ValueType("enum", values=("a",)), "a", {}, "a"),
        (ValueType("json"), '{"a": [1]}', {}, {"a": [1]}),
    ],
)  # fmt: skip
def test_a_cell_is_read_by_its_type(kind: ValueType, text: str, options: dict[str, object], value: object) -> None:
    assert cell_reader(kind, **options)(text) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "text", "what"),
    [
        (ValueType("integer"), "s3cret", "wants a whole number"),
        (ValueType("integer"), "", "is empty"),
        (ValueType("integer"), "9223372036854775808", "wants a whole number of at most 64 bits"),
        (MONEY, "19.999", "more than 2 digits after the point, 2 are kept"),
        (MONEY, "19999.99", "more than 4 digits before the point"),
        (MONEY, "NaN", "wants a decimal number"),
        (ValueType("boolean"), "maybe", "wants true or false"),
        (ValueType("date"), "31.2.2017", "wants a date (YYYY-MM-DD)"),
        (ValueType("enum", values=("a", "b")), "c", "wants one of a, b"),
        (ValueType("string", max_length=3), "four", "text of 4 characters, at most 3 are allowed"),
        (ValueType("string"), "a\x00", "text with a NUL character cannot be stored"),
        (ValueType("json"), "{", "wants JSON"),
    ],
)
def test_a_cell_that_does_not_fit_says_why_and_not_what(kind: ValueType, text: str, what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        cell_reader(kind)(text)
    assert caught.value.what == what


@given(st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_text_comes_back_as_it_went_out(text: str) -> None:
    written = cell_text(text)
    assert not written.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell_reader(ValueType("text"))(written) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-9999, max_value=9999))
def test_decimals_come_back_as_they_went_out(value: Decimal) -> None:
    for mark in ".,":
        assert cell_reader(MONEY, decimal=mark)(cell_text(value, decimal=mark)) == value
