"""A pattern is understood or refused, with the same verdict wherever it runs."""

import pytest

from runner.sql.patterns import PatternTimeout, matches_pattern
from schemas.patterns import parse_like, parse_pattern
from schemas.types import ValueProblem


@pytest.mark.parametrize(
    ("pattern", "flags", "text", "found"),
    [
        ("b", "", "abc", True),
        ("^b", "", "abc", False),
        ("", "", "", True),
        ("a.c", "", "a\nc", False),
        ("a.c", "s", "a\nc", True),
        ("^b$", "", "a\nb\nc", False),
        ("^b$", "m", "a\nb\nc", True),
        ("b$", "", "b\n", False),
        ("Ä", "", "ä", False),
        ("Ä", "i", "ä", True),
        ("[a-c]", "i", "B", True),
        ("[^a-c]", "i", "B", False),
        (r"\d+", "", "٣", False),
        (r"\bcat\b", "", "a cat!", True),
        (r"\bcat\b", "", "concat", False),
        ("a b # c", "x", "ab", True),
        ("a(?=b)", "", "ab", True),
        ("a(?!b)", "", "ab", False),
        ("(a|b){2,3}?c", "", "abac", True),
        (r"a\.b", "", "axb", False),
        ("x{", "", "x{", True),
        (r"[\d\-\]]+$", "", "1-]", True),
    ],
)
def test_what_a_pattern_finds(pattern: str, flags: str, text: str, found: bool) -> None:
    assert matches_pattern(parse_pattern(pattern, flags).spelled, text) is found


@pytest.mark.parametrize(
    ("pattern", "flags", "what"),
    [
        ("a)", "", "$regex: a `)` without its `(`, at character 2 of the pattern"),
        ("(a", "", "$regex: a `(` without its `)`, at character 1 of the pattern"),
        ("*a", "", "$regex: there is nothing to repeat, at character 1 of the pattern"),
        ("a**", "", "$regex: two repetitions in a row, at character 3 of the pattern"),
        ("(?<=a)b", "", "$regex: only (?:…), (?=…) and (?!…) are known, at character 1 of the pattern"),
        (r"(a)\1", "", r"$regex: \1 is not known, at character 4 of the pattern"),
        ("[b-a]", "", "$regex: this range is empty or has no end, at character 2 of the pattern"),
        ("(a{100}){3}", "", "$regex: counts, nested ones multiplied, go up to 255, at character 2 of the pattern"),
        (
            "a{300}",
            "",
            "$regex: a count goes from a smaller to a larger number, up to 255, at character 2 of the pattern",
        ),
        ("a" * 1001, "", "a pattern has at most 1000 characters"),
        ("a", "ig", "$options knows i, m, s and x, got 'ig'"),
        ("(" * 60 + ")" * 60, "", "$regex: groups nest at most 50 deep, at character 52 of the pattern"),
    ],
)
def test_what_is_no_pattern_says_where(pattern: str, flags: str, what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_pattern(pattern, flags)
    assert caught.value.what == what


def test_ilike_is_the_whole_text_in_any_case() -> None:
    for pattern, text, found in [
        ("st%_E", "STRAßE", True), (r"\%", "x", False), (r"\%", "%", True), ("%", "a\nb", True), ("a%b%c", "aXbXbXc", True),
        ("a%b%bc", "abc", False), ("%a%", "bab", True), ("", "", True), ("", "x", False), ("a%a", "a", False),
    ]:  # fmt: skip
        like = parse_like(pattern, is_folded=True)
        assert matches_pattern(like.spelled, text) is found
        assert matches_pattern(like.local or like.spelled, text) is found


def test_a_like_with_many_runs_takes_no_time() -> None:
    like = parse_like("%a" * 30 + "%b", is_folded=True)
    assert not matches_pattern(like.local, "a" * 20_000)


@pytest.mark.parametrize(
    ("pattern", "flags", "prefix"),
    [
        ("^abc", "", "abc"), ("^ab+c", "", "ab"), ("^ab*", "", "a"), ("^ab?c", "", "a"), ("^a{2}", "", ""),
        ("^a|b", "", ""), ("^a", "i", ""), ("^a", "m", ""), ("abc", "", ""), (r"^a\.b", "", "a"), ("^a b", "x", ""),
        ("^a", "s", "a"),
    ],
)  # fmt: skip
def test_the_prefix_of_a_pattern_is_sure(pattern: str, flags: str, prefix: str) -> None:
    assert parse_pattern(pattern, flags).prefix == prefix


def test_a_pattern_cannot_hold_the_process() -> None:
    try:
        assert not matches_pattern(parse_pattern("^(a|aa|a*)*(b|c)*d$").spelled, "a" * 5000 + "e")
    except PatternTimeout:
        pass  # given up after its second, which is the promise
