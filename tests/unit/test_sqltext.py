"""SQL texts: places, words, and what no step may say."""

import pytest

from schemas.sqltext import read_sql, writes
from schemas.types import ValueProblem


@pytest.mark.parametrize(
    ("text", "names", "bound"),
    [
        ("select * from t where a = :least and b < :most", ("least", "most"), None),
        ("select ':no', \":no\", a::text from t -- :no\n where a = :yes /* :no */", ("yes",), "\\:no"),
        ("select $$ :no ; $$, $x$ it's :no $x$ from t;", (), "\\:no"),
        ("select a from t where b = :x or c = :x ;", ("x",), None),
        ("select 'it''s :no' || :x", ("x",), None),
        (r"select E'it\'s :no' || :x", ("x",), None),
        (r"select '\' || :x || '\'", ("x",), None),
    ],
)
def test_places_are_told_from_strings_and_comments(text: str, names: tuple[str, ...], bound: str | None) -> None:
    sql = read_sql(text)
    assert sql.names == names
    assert bound is None or bound in sql.text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("begin", "BEGIN is not for a step"),
        ("/* x */ Commit", "COMMIT is not for a step"),
        ("ROLLBACK TO x", "ROLLBACK is not for a step"),
        ("set role other", "SET is not for a step"),
        ("pragma foreign_keys = off", "PRAGMA is not for a step"),
        ("update t set a = 1; commit", "more than one statement"),
        ("select 'a", "' has no end"),
        ("select /* a", "/* has no end"),
        ('select U&"\\0061" from t', 'U&" is not for a step'),
        ("  ", "wants one SQL statement"),
        (";", "wants one SQL statement"),
    ],
)
def test_what_no_step_may_say_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        read_sql(text)
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("select a from t for update", ""),
        ("select a from t for no key update", ""),
        ("select 'delete', replace(a, 'x', 'y') from t", ""),
        ('select "update" from t', ""),
        ("with x as (delete from t returning a) select * from x", "delete"),
        ("with x as (insert into t values (1) returning a) select * from x", "insert"),
        ("select a into u from t", "into"),
        ("update t set a = 1", "update"),
        ("refresh materialized view v", "refresh"),
        ("values (1)", ""),
    ],
)
def test_a_write_is_told_from_a_reading(text: str, word: str) -> None:
    assert writes(read_sql(text)) == word
