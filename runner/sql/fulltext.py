"""Searching for words: what each database keeps to answer it, and the condition that asks.

PostgreSQL has a GIN index over the words of the fields, cut by a function of dfrun's own, because the server's parser
and its letters depend on its locale. SQLite has an FTS5 table without content, which triggers keep in step with its
table, whoever writes there. Which characters make a word is decided in `schemas.words`, for both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, reduce
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.sql.elements import ColumnElement

from runner.sql.jsonsql import Database
from schemas.searches import Search, Term
from schemas.shapes import IndexShape, ModelShape
from schemas.words import BLOCKS, MARKS, SEPARATORS, folds

CHARACTERS = 240_000
"""So many of a row can be found, in equal shares of the fields: a tsvector holds at most a megabyte."""
FUNCTION = "dfrun_words_1"
"""Counted up when words change, so that no index is left with older ones."""
_LONGEST = "[^ ]{250}"
_GAP = 64
TOKENIZER = "unicode61 remove_diacritics 2"


def search_condition(search: Search, model: ModelShape, table: sa.Table, database: Database) -> ColumnElement[bool]:
    """The condition that holds on the rows in which all the words occur."""
    index = model.text_search
    assert index is not None, f"{model.name} has nothing to search"
    if database == "sqlite":
        return _match(search, index, table)
    plain = [_lexemes(term, "!" if term.is_excluded else "") for term in search.terms if _is_asked(term)]
    query = sa.cast(sa.literal(" & ".join(plain), sa.Text()), TSQUERY())
    found: ColumnElement[bool] = document(index, table).op("@@", is_comparison=True)(query)
    phrases = [_phrase(term, index, table) for term in search.terms if len(term.words) > 1]
    return sa.and_(found, *phrases)


def document(index: IndexShape, table: sa.Table) -> ColumnElement[Any]:
    """The words of a row as PostgreSQL's index has them."""
    words = [_words(index, table, name) for name in index.fields]
    return sa.func.array_to_tsvector(reduce(sa.func.array_cat, words))


def _words(index: IndexShape, table: sa.Table, name: str) -> ColumnElement[Any]:
    return sa.func.dfrun_words_1(table.c[name], sa.literal_column(str(_share(index.fields))))


def _is_asked(term: Term) -> bool:
    """Whether the index says something about it: a phrase that must not occur may have words that do."""
    return not (term.is_excluded and len(term.words) > 1)


def _lexemes(term: Term, sign: str) -> str:
    last = len(term.words) - 1
    return " & ".join(f"{sign}'{w}'{':*' if term.is_prefix and i == last else ''}" for i, w in enumerate(term.words))


def _phrase(term: Term, index: IndexShape, table: sa.Table) -> ColumnElement[bool]:
    """Whether the words stand next to each other. The index has no places: a tsvector keeps too few of them."""
    wanted = sa.literal(f"% {' '.join(term.words)}{'' if term.is_prefix else ' '}%", sa.Text())
    space: ColumnElement[str] = sa.literal_column("' '")
    texts = [sa.func.array_to_string(_words(index, table, name), space) for name in index.fields]
    occurs = sa.or_(*(sa.func.concat(space, text, space).like(wanted) for text in texts))
    return sa.not_(occurs) if term.is_excluded else occurs


def _match(search: Search, shape: IndexShape, table: sa.Table) -> ColumnElement[bool]:
    index = sa.table(shape.name, sa.column("rowid"), sa.column(shape.name))
    wanted = " AND ".join(map(_quoted_term, search.wanted))
    excluded = " OR ".join(map(_quoted_term, search.excluded))
    text = sa.literal(f"({wanted}) NOT ({excluded})" if excluded else wanted, sa.Text())
    found = sa.select(index.c.rowid).where(index.c[shape.name].op("MATCH", is_comparison=True)(text))
    number: ColumnElement[int] = sa.literal_column(f"{_name(table.name)}.{_row_number(table.c.keys())}")
    return number.in_(found)


def _quoted_term(term: Term) -> str:
    return f'"{" ".join(term.words)}"{" *" if term.is_prefix else ""}'


def _share(fields: Sequence[str]) -> int:
    return CHARACTERS // len(fields)


# --- what PostgreSQL keeps -----------------------------------------------------------------------------------------


def needed(texts: Sequence[str]) -> list[str]:
    """The statement that makes the function, if one of these statements calls it."""
    return [word_function()] if any(f"{FUNCTION}(" in text for text in texts) else []


@cache
def word_function() -> str:
    """The function that gives the words of a text."""
    steps = []
    for first, last in BLOCKS:
        pairs = {c: small for c, small in folds().items() if first <= ord(c) <= last}
        marks = "".join(mark for mark in MARKS if first <= ord(mark) <= last)
        before, after = "".join(pairs) + marks, "".join(pairs.values())  # what has no partner is left out
        steps.append(f"IF found ~ '[{_ranges(before)}]' THEN found := translate(found, '{before}', '{after}'); END IF;")
    lines = "\n    ".join(steps)
    between = "".join("-".join(_escaped(int(end, 16)) for end in part.split("-")) for part in SEPARATORS.split())
    return f"""CREATE OR REPLACE FUNCTION {FUNCTION}(content text, longest integer) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $dfrun$
DECLARE found text COLLATE "C" := lower(left(coalesce(content, ''), longest) COLLATE "C");
BEGIN
  IF found ~ '[^\\u0001-\\u007f]' THEN
    {lines}
    found := regexp_replace(found, '[\\u0001-/:-`{{-\\u007f{between}]+', ' ', 'g');
  ELSE
    found := regexp_replace(found, '[^a-z0-9]+', ' ', 'g');
  END IF;
  IF length(found) > 500 THEN found := regexp_replace(found, '({_LONGEST}{_LONGEST})[^ ]+', '\\1', 'g'); END IF;
  RETURN array_remove(string_to_array(found, ' '), '');
END $dfrun$"""


def _ranges(characters: str) -> str:
    """A class of a pattern with these characters, and with those in small gaps between them."""
    codes = sorted(map(ord, characters))
    starts = [b for a, b in pairwise([-_GAP, *codes]) if b - a >= _GAP]
    ends = [a for a, b in pairwise([*codes, codes[-1] + _GAP]) if b - a >= _GAP]
    return "".join(f"{_escaped(start)}-{_escaped(end)}" for start, end in zip(starts, ends, strict=True))


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


# --- what SQLite keeps ---------------------------------------------------------------------------------------------


def lite_statements(name: str, table: str, fields: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The FTS5 table `name` over some of the `columns` of a table, its triggers, and its first rows."""
    index, owner, row = _name(name), _name(table), _row_number(columns)
    kept = ", ".join(_name(f"in_{field}") for field in fields)

    def values(of: str) -> str:
        return ", ".join(f"substr({of}{_name(field)}, 1, {_share(fields)})" for field in fields)

    put = f"INSERT INTO {index} (rowid, {kept}) VALUES (new.{row}, {values('new.')});"
    take = f"INSERT INTO {index} ({index}, rowid, {kept}) VALUES ('delete', old.{row}, {values('old.')});"
    inserted, deleted, updated = map(_name, lite_triggers(name))
    changed = " OR ".join(f"old.{_name(n)} IS NOT new.{_name(n)}" for n in fields)
    return [
        f"CREATE VIRTUAL TABLE {index} USING fts5({kept}, content='', columnsize=0, tokenize='{TOKENIZER}')",
        f"CREATE TRIGGER {inserted} AFTER INSERT ON {owner} BEGIN {put} END",
        f"CREATE TRIGGER {deleted} AFTER DELETE ON {owner} BEGIN {take} END",
        f"CREATE TRIGGER {updated} AFTER UPDATE ON {owner} "
        f"WHEN old.{row} <> new.{row} OR {changed} BEGIN {take} {put} END",
        f"INSERT INTO {index} (rowid, {kept}) SELECT {row}, {values('')} FROM {owner}",
    ]


def lite_drops(name: str) -> list[str]:
    """The statements that take it away."""
    triggers = [f"DROP TRIGGER IF EXISTS {_name(trigger)}" for trigger in lite_triggers(name)]
    return [*triggers, f"DROP TABLE {_name(name)}"]


def lite_triggers(name: str) -> list[str]:
    """The names of its triggers, in the order of the statements."""
    return [f"{name}_{event}" for event in ("insert", "delete", "update")]


def lite_fields(sql: str) -> tuple[str, ...] | None:
    """The fields of an FTS5 table of dfrun's, by its CREATE; None for another virtual table."""
    if not re.match(r"CREATE VIRTUAL TABLE \S+ USING fts5\(\"?in_", sql):
        return None
    return tuple(found.replace('""', '"') for found in re.findall(r'"in_((?:[^"]|"")+)"', sql))


def _row_number(columns: Sequence[str]) -> str:
    """SQLite's own number of a row, by a name that no column has taken."""
    taken = {column.lower() for column in columns}
    return next(name for name in ("rowid", "_rowid_", "oid") if name not in taken)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
