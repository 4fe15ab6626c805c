"""Reading YAML keeps every character and every place, and refuses what could mean two things."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import DefinitionError
from runner.source import parse_document
from schemas.base import Scalar


def read(text: str) -> object:
    return parse_document(text.encode(), "f.yaml").root


@pytest.mark.parametrize("text", ["no", "010", "22:22", "1e3", "2024-01-01", "1.10", "Yes", "0x1F"])
def test_a_scalar_keeps_its_characters(text: str) -> None:
    assert read(f"a: {text}") == {"a": text}


def test_quotes_tell_text_from_null() -> None:
    root = read("a: null\nb: 'null'\nc:\n")
    assert root == {"a": None, "b": "null", "c": None}


def test_places_count_from_one_and_have_a_width() -> None:
    document = parse_document(b"steps:\n  one:\n    node: X.create\n    after: [a, bb]\n", "f.yaml")
    value, key = document.place(("steps", "one", "node")), document.place(("steps", "one", "node"), key=True)
    assert (str(value), value.width) == ("f.yaml:3:11", 8)
    assert (str(key), key.width) == ("f.yaml:3:5", 4)
    assert str(document.place(("steps", "one", "after", 1))) == "f.yaml:4:16"
    assert str(document.place(("steps", "one", "with", "x"))) == "f.yaml:2:3"


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("a: 1\na: 2\n", "DF108", "f.yaml:2:1"),
        ("a: !!str 1\n", "DF106", "f.yaml:1:4"),
        ("b: &x {c: 1}\na:\n  <<: *x\n", "DF106", "f.yaml:3:3"),
        ("a: ${steps.one.id}\n", "DF107", "f.yaml:1:4"),
        ("a: '{{ one.id }}'\n", "DF107", "f.yaml:1:4"),
        ("a: [1\n", "DF104", "f.yaml:2:1"),
        ("a: 1\n---\nb: 2\n", "DF105", "f.yaml:2:1"),
        ("- 1\n", "DF105", "f.yaml:1:1"),
        ("", "DF105", "f.yaml:1:1"),
        ("? [1, 2]\n: 3\n", "DF108", "f.yaml:1:3"),
        ("%YAML 1.1\n---\na: 1\n", "DF106", "f.yaml:1:1"),
        ("a: *x\n", "DF104", "f.yaml:1:4"),
        ("a: x\u200by\n", "DF103", "f.yaml:1:5"),
        ("a: " + "[" * 100 + "]" * 100, "DF102", "f.yaml:1:67"),
    ],
)
def test_what_could_mean_two_things_is_refused(text: str, code: str, place: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(text)
    assert [(p.code, str(p.place)) for p in caught.value.problems] == [(code, place)]


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("steps: {a: {with: {email: '${params.email}'}}}", "inputs: {email: params.email}"),
        ("steps: {a: {with: {filter: {sku: {$in: '{{ steps.b.skus }}'}}}}}", "inputs: {filter.sku.$in: b.skus}"),
        ("steps: {a: {inputs: {email: '${b.email}'}}}", "inputs: {email: b.email}"),
        ("steps: {a: {with: {message: 'Hello ${b.name}!'}}}",
         "a text.format step joins texts, and inputs: {message: STEP.text} takes it"),
    ],
)  # fmt: skip
def test_a_template_is_told_the_connection_that_was_meant(text: str, fix: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(text)
    assert caught.value.problems[0].fix == f"{fix}; {{$literal: …}} holds text that truly has it"


def test_a_literal_may_hold_a_template() -> None:
    assert read("a: {$literal: '${x}'}") == {"a": {"$literal": "${x}"}}


def test_aliases_count_at_their_expanded_size() -> None:
    bomb = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    with pytest.raises(DefinitionError, match="DF102"):
        read(bomb)


def test_bytes_that_are_not_utf_8_have_a_place() -> None:
    with pytest.raises(DefinitionError, match=r"f\.yaml:2:4: DF103"):
        parse_document(b"a: 1\nb: \xff\n", "f.yaml")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_quoted_text_comes_back(text: str) -> None:
    if "${" in text or "{{" in text:
        return
    root = read("a: '" + text.replace("'", "''") + "'")
    assert root == {"a": text} and isinstance(root["a"], Scalar)  # type: ignore[index]
    assert not root["a"].plain  # type: ignore[index]


@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_a_problem(content: bytes) -> None:
    try:
        parse_document(content, "f.yaml")
    except DefinitionError as error:
        assert error.problems
