"""`with` and `inputs` become one tree, and no place is filled twice."""

import pytest

from runner.arguments import Path, put, split_target
from schemas.types import ValueProblem

QUERY = frozenset({"filter", "update"})


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("customer_id", ("customer_id",)),
        ("filter.sku.$in", ("filter", "sku", "$in")),
        ("filter.profile.city.$eq", ("filter", "profile.city", "$eq")),
        ("filter.$and.0.sku", ("filter", "$and", 0, "sku")),
        ("update.price.$multiply.1", ("update", "price", "$multiply", 1)),
        ("fields.order_id", ("fields", "order_id")),
    ],
)
def test_a_key_of_inputs_leads_to_one_place(key: str, path: Path) -> None:
    assert split_target(key, QUERY) == path


def test_a_connection_extends_a_list_by_its_next_element() -> None:
    tree: dict[str, object] = {"update": {"price": {"$multiply": ["a"]}}}
    put(tree, ("update", "price", "$multiply", 1), "b")
    assert tree == {"update": {"price": {"$multiply": ["a", "b"]}}}


@pytest.mark.parametrize("path", [("a",), ("a", "b"), ("c", 0), ("c", 5)])
def test_a_place_that_is_taken_or_leaves_a_gap_is_refused(path: Path) -> None:
    with pytest.raises(ValueProblem):
        put({"a": 1, "c": [1]}, path, "value")
