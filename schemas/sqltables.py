"""Which tables a statement may touch, told from where names stand. Where that cannot be told it names too many, never
too few: what is kept from a text by its tables must not slip through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Kind = Literal["word", "quoted", "string", "mark"]
_OPENS = {"from", "join", "using", "into", "update", "table", "truncate"}
"""What follows these is a table, and so is what follows a comma after it."""
_CLOSES = {
    "where", "select", "group", "order", "having", "set", "values", "returning", "limit", "offset", "fetch", "window",
    "union", "intersect", "except", "when", "for",
}  # fmt: skip
"""What follows these is none."""
_BETWEEN = {"only", "of", "lateral", "or", "replace", "rollback", "abort", "fail", "ignore"}
"""May stand between `update` or `from` and the table."""
_OF_ROWS = {"select", "with", "values", "table", "insert", "replace", "update", "delete", "merge"}
"""Statements in which a table stands in known places; in any other, every word may be one."""


def tables_in(tokens: Iterable[tuple[Kind, str]]) -> frozenset[str]:
    """The names that may be tables, in lower case: words where a table can stand, whatever is quoted, and the words of
    a string that holds a statement itself or is handed to a function.

    tokens: words in lower case, quoted names and strings without their quotes, and the marks `( ) , .`.
    """
    given = list(tokens)
    first = next((text for kind, text in given if kind == "word"), "")
    found = _Finder()
    for kind, text in given:
        found.take(kind, text)
        if kind == "quoted":
            found.tables.add(text.lower())
        elif first not in _OF_ROWS or (kind == "string" and _words(text)[:1] and _words(text)[0] in _STATEMENTS):
            found.tables |= set(_words(text))
    return frozenset(found.tables)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


_NO_FUNCTIONS = _OPENS | _CLOSES | {"in", "and", "or", "not", "on", "then", "else", "as", "by", "over", "exists", "is"}
"""A parenthesis after these holds no arguments."""
_STATEMENTS = _OF_ROWS | {"truncate", "drop", "alter", "create", "copy", "explain", "do", "execute", "call", "grant"}


class _Finder:
    """Reads from left to right. expects: the next name is a table; lists: for each open parenthesis, whether a comma in
    it separates tables. calls: whether it holds the arguments of a function. last: the word just before."""

    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.expects = False
        self.was_table = False
        self.is_list = False  # after IN: SQLite takes a table there, and a parenthesis is a list of values
        self.lists = [False]
        self.calls = [False]
        self.last = ""

    def take(self, kind: Kind, text: str) -> None:
        self._take(kind, text)
        self.last = text if kind == "word" else ""

    def _take(self, kind: Kind, text: str) -> None:
        if kind == "mark":
            self._mark(text)
        elif kind == "word" and text in _OPENS:
            self.expects, self.is_list, self.lists[-1] = True, False, True
        elif kind == "word" and text == "in":
            self.expects = self.is_list = True
        elif kind == "word" and text in _CLOSES:
            self.expects, self.lists[-1] = False, False
        elif kind == "word" and self.expects and text in _BETWEEN:
            pass
        else:
            if self.expects:  # SQLite takes a string for a table's name
                self.tables.add(text.lower())
            elif kind == "string" and self.calls[-1]:
                self.tables |= set(_words(text))
            self.was_table, self.expects, self.is_list = self.expects, False, False

    def _mark(self, text: str) -> None:
        if text == "(":
            self.expects = self.expects and not self.is_list
            self.lists.append(self.expects)
            self.calls.append(self.calls[-1] or (bool(self.last) and self.last not in _NO_FUNCTIONS))
        elif text == ")":
            self.expects = False
            if len(self.lists) > 1:
                self.lists.pop()
                self.calls.pop()
        elif text == ",":
            self.expects = self.lists[-1]
        else:
            self.expects = self.was_table  # of `public.customer` the second is the table
        self.is_list = False
