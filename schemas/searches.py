"""The words of a `search`: all must occur, `"a phrase"` as it stands, `-word` must not, `word*` is how one begins.

What a word is says `schemas.words`; how it is asked, `runner.sql.fulltext`.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.types import ValueProblem
from schemas.words import split_words

LONGEST_SEARCH = 1_000
LONGEST_WORD = 200
"""Both in characters; a database keeps the beginning of a longer word, so it could not be told from another."""
_WHY = "a search without words would mean every row, or none"


@dataclass(frozen=True, slots=True)
class Term:
    """Words that stand next to each other in one field. `is_prefix`: the last one may go on."""

    words: tuple[str, ...]
    is_prefix: bool = False
    is_excluded: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """At least one term that is not excluded."""

    terms: tuple[Term, ...]

    @property
    def wanted(self) -> tuple[Term, ...]:
        """The terms that occur."""
        return tuple(term for term in self.terms if not term.is_excluded)

    @property
    def excluded(self) -> tuple[Term, ...]:
        """The terms that do not."""
        return tuple(term for term in self.terms if term.is_excluded)


def parse_search(text: str) -> Search:
    """The terms of a text. Raises `ValueProblem`.

    >>> parse_search('e-mail "green tea" -bag* ')
    Search(terms=(Term(words=('e', 'mail'), is_prefix=False, is_excluded=False), \
Term(words=('green', 'tea'), is_prefix=False, is_excluded=False), \
Term(words=('bag',), is_prefix=True, is_excluded=True)))
    """
    if len(text) > LONGEST_SEARCH:
        raise ValueProblem(f"a search has at most {LONGEST_SEARCH} characters", kind="shape")
    found: list[Term] = []
    rest = text.lstrip()
    while rest:
        is_excluded = rest.startswith("-")
        inside, is_prefix, rest = _next(rest.removeprefix("-") if is_excluded else rest)
        words = tuple(split_words(inside))
        if any(len(word) > LONGEST_WORD for word in words):
            raise ValueProblem(f"a word of a search has at most {LONGEST_WORD} characters", kind="shape")
        if words:
            found.append(Term(words, is_prefix, is_excluded))
        rest = rest.lstrip()
    search = Search(tuple(dict.fromkeys(found)))
    if not search.terms:
        raise ValueProblem("search wants a word", kind="shape", why=_WHY, fix="leave search out to list without it")
    if not search.wanted:
        what = "search wants a word that occurs, beside those that must not"
        raise ValueProblem(what, kind="shape", why=_WHY, fix="word -without")
    return search


def _next(text: str) -> tuple[str, bool, str]:
    """What the first term is about, whether its last word may go on, and the text after it."""
    if text.startswith('"'):
        inside, quote, rest = text[1:].partition('"')
        if not quote:
            raise ValueProblem('a phrase lacks its closing "', kind="shape", fix='"two words"')
    else:
        end = next((i for i, c in enumerate(text) if c.isspace() or c == '"'), len(text))
        inside, rest = text[:end], text[end:]
        if inside.endswith("*"):
            return inside, True, rest
    return inside, rest.startswith("*"), rest.removeprefix("*")
