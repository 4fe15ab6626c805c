"""References reach into the typed value of a step."""

import asyncio

import pytest

from runner.ports import parse_reference, reach_type
from runner.reach import reach
from schemas.types import ValueProblem, ValueType

SKU = ValueType("string", max_length=40)
LISTING = ValueType("record", fields={"rows": ValueType("rows", fields={"sku": SKU}), "count": ValueType("integer")})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (("count",), ValueType("integer")),
        (("rows", "count"), ValueType("integer")),
        (("rows", "0", "sku"), SKU),
        (("rows", "*", "sku"), ValueType("list", items=SKU)),
    ],
)
def test_a_reference_has_the_type_of_what_it_reaches(path: tuple[str, ...], wanted: ValueType) -> None:
    assert reach_type(LISTING, path, "find") == wanted


def test_a_column_that_is_called_as_a_path_is_reached_by_its_name() -> None:
    fields = {"extra.color": ValueType("json", True), "extra.0.x": SKU, "r": ValueType("integer")}
    rows = ValueType("record", fields={"rows": ValueType("rows", fields=fields)})
    assert reach_type(rows, ("rows", "0", "extra", "color"), "sums") == fields["extra.color"]
    assert reach_type(rows, ("rows", "0", "extra", "color", "deep"), "sums") == ValueType("json", nullable=True)
    assert reach_type(rows, ("rows", "*", "extra", "0", "x"), "sums") == ValueType("list", items=SKU)
    for wrong in (("extra",), ("extra", "size"), ("extra", "0", "x", "y")):
        with pytest.raises(ValueProblem):
            reach_type(rows, ("rows", "0", *wrong), "sums")
    value = {"rows": [{"extra.color": {"deep": 7}, "extra.0.x": "a"}], "next": {"extra.size": 1}}
    for path, found in [
        ("rows.0.extra.color.deep", 7), ("rows.*.extra.0.x", ["a"]), ("next.extra.size", 1), ("rows.0.extra.y", None),
    ]:  # fmt: skip
        assert asyncio.run(reach(value, path.split("."))) == found


def test_an_unknown_output_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueProblem) as caught:
        reach_type(LISTING, ("cuont",), "find")
    assert (caught.value.what, caught.value.fix) == ("'find' has no output 'cuont'", "did you mean find.count?")


def test_a_column_of_rows_wants_the_star() -> None:
    with pytest.raises(ValueProblem) as caught:
        reach_type(LISTING, ("rows", "sku"), "find")
    assert caught.value.fix == "did you mean find.rows.*.sku?"


@pytest.mark.parametrize("text", ["", "a..b", "a b", "${a}", "{{a}}", "a.", "1a", None, 5])
def test_anything_else_is_no_reference(text: object) -> None:
    with pytest.raises(ValueProblem):
        parse_reference(text)
