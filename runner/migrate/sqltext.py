"""SQLite's own SQL text as tokens: the parts of a CREATE TABLE, spelled in one way whoever wrote them.

SQLite keeps the text of each CREATE and edits it on ALTER; there is no catalog of constraints to ask instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runner.migrate.snapshot import Facts

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)|(?P<note>/\*.*?\*/)|(?P<text>[xX]?'(?:[^']|'')*')
    |(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])|(?P<number>\d[\w.]*(?:(?<=[eE])[-+]\d+)?|\.\d+)
    |(?P<word>[^\W\d][\w$]*)|(?P<sign>\|\||<=|>=|<>|!=|==|<<|>>|->>|->|.)""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = """
abort action add after all alter always analyze and as asc attach autoincrement before begin between by cascade
case cast check collate column commit conflict constraint create cross current current_date current_time
current_timestamp database default deferrable deferred delete desc detach distinct do drop each else end escape
except exclude exclusive exists explain fail filter first following for foreign from full generated glob group
groups having if ignore immediate in index indexed initially inner insert instead intersect into is isnull join key
last left like limit match materialized natural no not nothing notnull null nulls of offset on or order others outer
over partition plan pragma preceding primary query raise range recursive references regexp reindex release rename
replace restrict returning right rollback row rows savepoint select set stored strict table temp temporary then ties
to transaction trigger unbounded union unique update using vacuum values view virtual when where window with
without rowid
"""
KEYWORDS = frozenset(_WORDS.split())
_TABLE_RULES = frozenset(("constraint", "primary", "unique", "check", "foreign"))
_COLUMN_RULES = frozenset(
    ("constraint", "primary", "not", "null", "unique", "check", "default", "collate", "references", "generated", "as")
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word, name, text, number or sign; `text` as it is spelled here: names unquoted where they can be."""

    kind: str
    text: str

    @property
    def word(self) -> str:
        """The lower-case keyword, "" for everything that is none."""
        return self.text.lower() if self.kind == "word" and self.text.lower() in KEYWORDS else ""


def tokens(sql: str) -> list[Token]:
    """The tokens of a statement, without spaces and line comments."""
    found: list[Token] = []
    for match in _TOKEN.finditer(sql):
        kind, text = str(match.lastgroup), match.group()
        if kind == "space":
            continue
        if kind == "name":
            quote = text[-1]
            inner = text[1:-1] if quote == "]" else text[1:-1].replace(quote * 2, quote)
            found.append(Token("name", quoted(inner)))
        elif kind == "word":
            found.append(Token("word", text.upper() if text.lower() in KEYWORDS else text))
        else:
            found.append(Token(kind, text))
    return found


def quoted(name: str) -> str:
    """A name as SQL takes it; quotes only where they are needed."""
    is_plain = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and name.lower() not in KEYWORDS
    return name if is_plain else '"' + name.replace('"', '""') + '"'


def unquoted(token: Token) -> str:
    """The name itself."""
    return token.text[1:-1].replace('""', '"') if token.text.startswith('"') else token.text


def spelled(parts: Sequence[Token]) -> str:
    """The tokens as text, spaced in one way."""
    told: list[str] = []
    for number, token in enumerate(parts):
        before = parts[number - 1] if number else None
        is_call = before is not None and token.text == "(" and before.kind in ("word", "name") and not before.word
        tight = before is None or token.text in (",", ")", ".") or before.text in ("(", ".") or is_call
        told.append(token.text if tight else f" {token.text}")
    return "".join(told)


@dataclass(slots=True)
class TableText:
    """What a CREATE TABLE says."""

    columns: dict[str, Facts] = field(default_factory=dict)
    constraints: dict[str, Facts] = field(default_factory=dict)
    options: str = ""


def parse_table(sql: str) -> TableText:
    """The columns and constraints of a CREATE TABLE; what stands at a column is told as of the table.

    >>> parse_table("create table t (a INTEGER check (a > 0))").constraints
    {'(CHECK (a > 0))': {'kind': 'c', 'definition': 'CHECK (a > 0)'}}
    """
    everything = tokens(sql)
    start = next(i for i, token in enumerate(everything) if token.text == "(")
    end = _closing(everything, start)
    table = TableText(options=spelled(everything[end + 1 :]))
    for part in _split(everything[start + 1 : end]):
        if part[0].kind == "word" and part[0].word in _TABLE_RULES:
            _table_rule(part, table)
        else:
            _column(part, table)
    return table


def _closing(parts: Sequence[Token], start: int) -> int:
    depth = 0
    for number in range(start, len(parts)):
        depth += {"(": 1, ")": -1}.get(parts[number].text, 0)
        if depth == 0:
            return number
    raise AssertionError("SQLite keeps balanced text")


def _split(parts: Sequence[Token]) -> Iterator[list[Token]]:
    depth = 0
    piece: list[Token] = []
    for token in parts:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            yield piece
            piece = []
        else:
            piece.append(token)
    yield piece


def _table_rule(part: list[Token], table: TableText) -> None:
    name = ""
    if part[0].word == "constraint":
        name, part = unquoted(part[1]), part[2:]
    part = [token for token in part if token.kind != "note"]
    match part[0].word:
        case "check":
            _add(table, name, {"kind": "c", "definition": spelled(part)})
        case "foreign":
            close = _closing(part, 2)
            _reference(table, name, spelled(part[3:close]), part[close + 1 :])
        case word:
            start = 2 if word == "primary" else 1
            inside = part[start + 1 : _closing(part, start)]
            auto = inside[-1].word == "autoincrement"
            rest = part[_closing(part, start) + 1 :]
            _key(table, name, "p" if word == "primary" else "u", spelled(inside[:-1] if auto else inside), rest, auto)


def _key(table: TableText, name: str, kind: str, columns: str, rest: Sequence[Token], auto: bool) -> None:
    word = "PRIMARY KEY" if kind == "p" else "UNIQUE"
    end = (" AUTOINCREMENT" if auto else "") + (f" {spelled(rest)}" if rest else "")
    _add(table, name, {"kind": kind, "definition": f"{word} ({columns}){end}", "columns": columns})


def _reference(table: TableText, name: str, columns: str, part: Sequence[Token]) -> None:
    """`part` begins with REFERENCES."""
    target = unquoted(part[1])
    rest, targets = list(part[2:]), ""
    if rest and rest[0].text == "(":
        close = _closing(rest, 0)
        targets, rest = spelled(rest[1:close]), rest[close + 1 :]
    end = f" {spelled(rest)}" if rest else ""
    into = f"{quoted(target)} ({targets})" if targets else quoted(target)
    _add(
        table, name,
        {"kind": "f", "definition": f"FOREIGN KEY ({columns}) REFERENCES {into}{end}", "columns": columns,
         "target": target, "target_columns": targets},
    )  # fmt: skip


def _add(table: TableText, name: str, facts: dict[str, str]) -> None:
    key = name or ("(PRIMARY KEY)" if facts["kind"] == "p" else f"({facts['definition']})")
    table.constraints[key] = facts


def _column(part: list[Token], table: TableText) -> None:
    name = unquoted(part[0])
    note = next((token.text for token in part if token.kind == "note"), "")
    rest = [token for token in part[1:] if token.kind != "note"]
    length = next((i for i, token in enumerate(rest) if token.word in _COLUMN_RULES), len(rest))
    kind = spelled(rest[:length]).upper()
    facts = {"type": f"{kind} {note}".strip(), "null": "yes"}
    rest, label, own = rest[length:], "", quoted(name)
    while rest:
        word = rest[0].word
        if word == "constraint":
            label, rest = unquoted(rest[1]), rest[2:]
            continue
        size = _rule_size(rest)
        rule, rest = rest[:size], rest[size:]
        if word == "not":
            facts["null"] = "no"
        elif word == "default":
            facts["default"] = spelled(rule[1:])
        elif word == "collate":
            facts["collation"] = rule[1].text
        elif word in ("generated", "as"):
            start = next(i for i, token in enumerate(rule) if token.text == "(")
            stored = "s" if rule[-1].word == "stored" else "v"
            facts["generated"] = f"{stored} {spelled(rule[start + 1 : _closing(rule, start)])}"
        elif word == "primary":
            _key(table, label, "p", own, (), any(token.word == "autoincrement" for token in rule))
        elif word == "unique":
            _key(table, label, "u", own, (), False)
        elif word == "check":
            _add(table, label, {"kind": "c", "definition": spelled(rule)})
        elif word == "references":
            _reference(table, label, own, rule)
        label = ""
    table.columns[name] = facts


def _rule_size(rest: Sequence[Token]) -> int:
    """How many tokens the rule at the start of `rest` takes, up to the next rule of the column."""
    depth = 0
    for number, token in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if number == 0 or depth or token.word not in _COLUMN_RULES:
            continue
        before = rest[number - 1].word
        # SET NULL, SET DEFAULT, NOT DEFERRABLE, NOT NULL, DEFAULT NULL, ALWAYS AS belong to what stands before
        follows = before in ("set", "not", "default", "always") and token.word in ("null", "default", "as")
        if follows or (token.word == "not" and number + 1 < len(rest) and rest[number + 1].word == "deferrable"):
            continue
        return number
    return len(rest)
