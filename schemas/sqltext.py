"""SQL as a user writes it: its words, its `:name` places, and what a text may not hold. Parses no grammar; it only
tells code from strings, quoted names and comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from schemas.sqltables import Kind, tables_in
from schemas.types import ValueProblem

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<dollar>\$(?P<tag>[A-Za-z_]\w*)?\$.*?\$(?P=tag)?\$)|(?P<string>[eE]'(?:''|\\.|[^'\\])*'|'(?:''|[^'])*')
    |(?P<escaped>[uU]&['"])|(?P<quoted>"(?:""|[^"])*"|`[^`]*`)|(?P<cast>::)|(?P<place>:[A-Za-z_]\w*)|(?P<word>[A-Za-z_][\w$]*)|(?P<end>;)
    |(?P<mark>[(),.])|(?P<open>['"]|/\*)""",
    re.S | re.X,
)
_CONTROLS = {
    "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare", "set", "reset",
    "discard", "attach", "detach", "pragma", "vacuum", "copy", "lock", "listen", "load",
}  # fmt: skip
"""Statements that begin with these end or change the transaction or the session, which belong to the program."""
_WRITES = {"insert", "update", "delete", "merge", "replace", "truncate", "create", "drop", "alter", "grant", "revoke"}
_READS = {"select", "with", "values", "table", "explain"}


@dataclass(frozen=True, slots=True)
class SqlText:
    """One statement: `text` as SQLAlchemy's `text()` reads it (colons that are no places are escaped), the names of its
    places in order, its words in lower case, strings and comments left out, the names that it quotes, as they are, and
    the tables that it may read or write, in lower case."""

    text: str
    names: tuple[str, ...]
    words: tuple[str, ...]
    quoted: tuple[str, ...] = ()
    tables: frozenset[str] = frozenset()


def read_sql(raw: object) -> SqlText:
    """The statement that `raw` holds. Raises `ValueProblem` for several statements, for words that belong to the
    program (BEGIN, COMMIT, SET, …), and for a string, name or comment without an end."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueProblem("wants one SQL statement", kind="shape")
    text = raw.strip()
    parts: list[str] = []
    names: dict[str, None] = {}
    words: list[str] = []
    tokens: list[tuple[Kind, str]] = []
    at = 0
    for found in _TOKEN.finditer(text):
        parts.append(text[at : found.start()].replace(":", r"\:"))
        at = found.end()
        token = found[0]
        if found["open"]:
            raise ValueProblem(f"{token} has no end", kind="shape")
        if found["escaped"]:
            why = "names in other spellings cannot be told from others"
            raise ValueProblem(f"{token} is not for a step", kind="shape", why=why, fix="write the characters")
        if found["end"]:
            if text[at:].strip():
                why = "a step is one statement in one transaction"
                raise ValueProblem("more than one statement", kind="shape", why=why, fix="write a step for each")
            continue
        if found["place"]:
            names[token[1:]] = None
            parts.append(token)
            continue
        if found["word"]:
            words.append(token.lower())
            tokens.append(("word", token.lower()))
        elif found["quoted"]:
            tokens.append(("quoted", token[1:-1].replace('""', '"')))
        elif found["string"]:
            tokens.append(("string", token[token.index("'") + 1 : -1].replace("''", "'")))
        elif found["dollar"]:
            tokens.append(("string", token.strip("$")))
        elif found["mark"]:
            tokens.append(("mark", token))
        parts.append(token.replace(":", r"\:"))
    parts.append(text[at:].replace(":", r"\:"))
    if not words:
        raise ValueProblem("wants one SQL statement", kind="shape")
    if words[0] in _CONTROLS:
        why = "every step has a transaction of its own, which the program begins and ends"
        raise ValueProblem(f"{words[0].upper()} is not for a step", kind="shape", why=why, fix="remove it")
    quoted = tuple(text for kind, text in tokens if kind == "quoted")
    return SqlText("".join(parts), tuple(names), tuple(words), quoted, tables_in(tokens))


def writes(sql: SqlText) -> str:
    """The word that makes the statement a write; "" for one that only reads."""
    if sql.words[0] not in _READS:
        return sql.words[0]
    for index, word in enumerate(sql.words):
        is_lock = word == "update" and index and sql.words[index - 1] in ("for", "key")
        if (word in _WRITES and not is_lock and word != "replace") or (word == "into" and index):
            return word
    return ""
