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


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("select a, b from t order by a, customer", "t"),
        ("select customer.a, customer from t as customer group by customer", "t"),
        ("select a from t, customer c, (select 1 from u, v) d where x = customer", "t customer u v"),
        (
            "select a from t join customer using (a, b) left join (u cross join v) on f(a, w) , x",
            "t customer a b u v x",
        ),
        ("select a from public.customer, main . t", "public customer main t"),
        ("select a from only customer, lateral (select b from u) w", "customer u"),
        ("select a from/* x */customer -- t", "customer"),
        ("select 'customer', a from t where b in ('customer', c) and d in u", "t u"),
        ("select a from 'customer'", "customer"),
        ('select "customer" from t', "customer t"),
        ("select a from [customer]", "customer"),
        ("select a from t union all select b from u where exists (table v)", "t u v"),
        ("with w as (select a from t) select a from w for update of t", "w t"),
        ("select extract(day from a), customer from t", "a t"),
        ("insert into t (a, customer) select a, b from u on conflict (customer) do update set a = 1", "t u"),
        ("insert or replace into t values (1)", "t"),
        ("update or replace customer set a = 1, t = 2 from u", "customer u"),
        ("update only customer set a = 1", "customer"),
        ("delete from t using customer, u where a = 1 returning a, v", "t customer u"),
        ("merge into t using customer on a = b when matched then delete", "t customer"),
        ("select run('delete from customer') from t where a = 'customer'", "t delete from customer"),
        ("do $$ begin delete from customer; end $$", "do begin delete from customer end"),
        ("select f(a, 'customer'), 'u' from t where b in ('v')", "t customer"),
        ("create index i on customer (a)", "create index i on customer a"),
        ("explain select a from t", "explain select a from t"),
    ],
)
def test_the_tables_of_a_statement_are_told_from_its_other_names(text: str, tables: str) -> None:
    assert read_sql(text).tables == set(tables.split())
