"""Patterns of `$regex`, `$like` and `$ilike`: the common ground of both databases, read here and spelled for each.

Every construct is spelled out so that no engine's own idea of it shows: `.` as "not a newline", `\\b` and `\\w` by
ASCII, case-insensitive letters as classes. Only whether a text contains a match counts, so lazy and greedy are
one. Back references and lookbehind are refused; so is what could take a database forever: long patterns, nested counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.types import ValueProblem

LONGEST_PATTERN = 1_000
MOST_REPEATS = 255
_DEEPEST = 50
_WORD = "A-Za-z0-9_"
_CLASSES = {"d": "0-9", "w": _WORD, "s": " \\t\\n\\r\\f\\v"}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_EDGE = f"(?:(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}]))"
_NO_EDGE = f"(?:(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}]))"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was understood. `spelled` is its text for every engine, `local` a faster one for the library
    `regex` alone where there is one; `prefix` is literal text that every text with a match begins with, or ""."""

    text: str
    flags: str
    spelled: str
    prefix: str = ""
    local: str = ""


def parse_pattern(text: str, flags: str = "") -> Pattern:
    """The pattern that `text` means with the flags `imsx`.

    Raises `ValueProblem` that says what is wrong and where in the pattern.

    >>> parse_pattern("^a.c$").spelled
    '\\\\Aa[^\\\\n]c\\\\Z'
    """
    for flag in flags:
        if flag not in "imsx" or flags.count(flag) > 1:
            raise ValueProblem(f"$options knows i, m, s and x, got {flags[:20]!r}")
    if len(text) > LONGEST_PATTERN:
        raise ValueProblem(f"a pattern has at most {LONGEST_PATTERN} characters")
    if "\x00" in text:
        raise ValueProblem("a pattern holds no NUL character")
    return Pattern(text, flags, _Reader(text, flags).read(), _prefix(text, flags))


def _prefix(text: str, flags: str) -> str:
    """The literal text after a leading `^`, as far as it is sure that every match begins with it.

    >>> _prefix("^ab+c", ""), _prefix("^ab*", ""), _prefix("^a|b", "")
    ('ab', 'a', '')
    """
    if not text.startswith("^") or set(flags) & set("imx") or "|" in text:
        return ""
    found = ""
    for character in text[1:]:
        if character in "*?{":
            return found[:-1]
        if character in ".^$+()[]\\":
            break
        found += character
    return found


def parse_like(text: str, *, is_folded: bool = False) -> Pattern:
    """The pattern of `$like` and, folded, of `$ilike`: the whole text, `%` any run, `_` one character, `\\` makes the
    next one plain.

    Raises `ValueProblem` for a lone backslash at the end, and for a pattern that is too long.
    """
    word = "$ilike" if is_folded else "$like"
    if len(text) > LONGEST_PATTERN:
        raise ValueProblem(f"a pattern has at most {LONGEST_PATTERN} characters")
    pieces = [""]  # what stands between the runs
    characters = iter(text)
    for character in characters:
        if character == "%":
            pieces.append("")
            continue
        if character == "\\":
            following = next(characters, None)
            if following is None:
                raise ValueProblem(f"{word}: the pattern ends in a lone backslash", fix="write two")
            pieces[-1] += _literal(following, is_folded)
        else:
            pieces[-1] += _ANY if character == "_" else _literal(character, is_folded)
    spelled = f"\\A{f'{_ANY}*'.join(pieces)}\\Z"
    if len(pieces) < 2:
        return Pattern(text, "i", spelled)
    # a run that found its next piece is never tried again: without that, every `%` multiplies the time
    first, *middle, last = pieces
    atomic = "".join(f"(?>{_ANY}*?{piece})" for piece in middle)
    return Pattern(text, "i", spelled, local=f"\\A{first}{atomic}{_ANY}*{last}\\Z")


_ANY = "(?:[^\\n]|\\n)"


class _Reader:
    """A recursive-descent reader that spells as it goes."""

    def __init__(self, text: str, flags: str) -> None:
        self.text = text
        self.at = 0
        self.is_folded = "i" in flags
        self.is_multiline = "m" in flags
        self.is_dot_all = "s" in flags
        self.is_extended = "x" in flags

    def read(self) -> str:
        spelled = self._branches(0, 1)
        if self.at < len(self.text):
            raise self._wrong("a `)` without its `(`")
        return spelled

    def _wrong(self, what: str, at: int | None = None) -> ValueProblem:
        return ValueProblem(f"$regex: {what}, at character {(self.at if at is None else at) + 1} of the pattern")

    def _branches(self, depth: int, repeats: int) -> str:
        if depth > _DEEPEST:
            raise self._wrong(f"groups nest at most {_DEEPEST} deep")
        branches = [self._sequence(depth, repeats)]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence(depth, repeats))
        return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"

    def _sequence(self, depth: int, repeats: int) -> str:
        parts = []
        while (character := self._peek()) is not None and character not in "|)":
            if self.is_extended and (character.isspace() or character == "#"):
                self._skip_blank()
                continue
            start = self.at
            part, is_repeatable = self._atom(depth, repeats)
            count = self._count()
            if count is None:
                parts.append(part)
                continue
            if not is_repeatable:
                raise self._wrong("there is nothing to repeat", start)
            low, high = count
            times = max(low, high or low, 1) if (low, high) not in ((0, None), (1, None), (0, 1)) else 1
            if times * repeats > MOST_REPEATS:
                raise self._wrong(f"counts, nested ones multiplied, go up to {MOST_REPEATS}", start)
            if times > 1 and part.startswith("("):
                self._check_inside(start, depth, repeats * times)
            parts.append(part + _spell_count(low, high))  # an atom is spelled as one unit
        return "".join(parts)

    def _check_inside(self, start: int, depth: int, repeats: int) -> None:
        """Read a counted group once more, now that its own counts multiply."""
        end, self.at = self.at, start
        self._atom(depth, repeats)
        self.at = end

    def _skip_blank(self) -> None:
        if self._peek() == "#":
            while self._peek() not in (None, "\n"):
                self.at += 1
        else:
            self.at += 1

    def _peek(self) -> str | None:
        return self.text[self.at] if self.at < len(self.text) else None

    def _take(self) -> str:
        character = self._peek()
        if character is None:
            raise self._wrong("the pattern ends too early")
        self.at += 1
        return character

    def _atom(self, depth: int, repeats: int) -> tuple[str, bool]:
        """The next piece as it is spelled, and whether it may be repeated."""
        start = self.at
        character = self._take()
        match character:
            case "^":
                return ("(?:\\A|(?<=\\n))" if self.is_multiline else "\\A"), False
            case "$":
                return ("(?:\\Z|(?=\\n))" if self.is_multiline else "\\Z"), False
            case ".":
                return ("(?:[^\\n]|\\n)" if self.is_dot_all else "[^\\n]"), True
            case "(":
                return self._group(start, depth, repeats)
            case "[":
                return self._class(start), True
            case "\\":
                return self._escape()
            case "*" | "+" | "?":
                raise self._wrong("there is nothing to repeat", start)
            case "{" if self._looks_like_count():
                raise self._wrong("there is nothing to repeat", start)
            case _:
                return _literal(character, self.is_folded), True

    def _group(self, start: int, depth: int, repeats: int) -> tuple[str, bool]:
        opening, is_look = "(?:", False
        if self._peek() == "?":
            mark = self.text[self.at : self.at + 2]
            if mark not in ("?:", "?=", "?!"):
                raise self._wrong("only (?:…), (?=…) and (?!…) are known", start)
            opening, is_look = f"({mark}", mark != "?:"
            self.at += 2
        inside = self._branches(depth + 1, repeats)
        if self._peek() != ")":
            raise self._wrong("a `(` without its `)`", start)
        self.at += 1
        return f"{opening}{inside})", not is_look

    def _escape(self) -> tuple[str, bool]:
        start = self.at - 1
        character = self._take()
        if character in "dws":
            return f"[{_CLASSES[character]}]", True
        if character in "DWS":
            return f"[^{_CLASSES[character.lower()]}]", True
        if character in "bB":
            return (_EDGE if character == "b" else _NO_EDGE), False
        if character in "AzZ":
            raise self._wrong(f"\\{character} is not known; ^ and $ without the option m are the ends", start)
        return _literal(self._plain(character, start), self.is_folded), True

    def _plain(self, character: str, start: int) -> str:
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            raise self._wrong(f"\\{character} is not known", start)
        return character

    def _class(self, start: int) -> str:
        is_negated = self._peek() == "^"
        self.at += is_negated
        parts: list[str] = []
        while self._peek() != "]" or not parts:
            if self._peek() is None:
                raise self._wrong("a `[` without its `]`", start)
            here = self.at
            low = self._member(start)
            if low[0] == "\\" and low[1:] in "dws":
                parts.append(_CLASSES[low[1:]])
                continue
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self._member(start)
                if len(high) != 1 or ord(high) < ord(low):
                    raise self._wrong("this range is empty or has no end", here)
                parts.append(_range(low, high, self.is_folded))
            else:
                parts += [_in_class(c) for c in _variants(low, self.is_folded)]
        self.at += 1
        return f"[{'^' if is_negated else ''}{''.join(parts)}]"

    def _member(self, start: int) -> str:
        """One character of a class, or the `\\d`, `\\w`, `\\s` in it."""
        here = self.at
        character = self._take()
        if character == "[":
            raise self._wrong("write \\[ inside a class", here)
        if character == "]":
            raise self._wrong("write \\] inside a class; an empty class is none", here)
        if character != "\\":
            return character
        escaped = self._take()
        if escaped in "dws":
            return "\\" + escaped
        if escaped in "DWSbB":
            raise self._wrong(f"\\{escaped} has no meaning inside a class", here)
        return self._plain(escaped, here)

    def _looks_like_count(self) -> bool:
        end = self.text.find("}", self.at)
        return end > 0 and self.text[self.at : end].replace(",", "", 1).isdigit()

    def _count(self) -> tuple[int, int | None] | None:
        character = self._peek()
        simple: dict[str | None, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if character in simple:
            self.at += 1
            found = simple[character]
        elif character == "{" and self._count_ahead():
            end = self.text.index("}", self.at)
            low, comma, high = self.text[self.at + 1 : end].partition(",")
            if not low:
                raise self._wrong("write {0,n}")
            found = (int(low), int(high) if high else None if comma else int(low))
            if max(found[0], found[1] or 0) > MOST_REPEATS or (found[1] is not None and found[1] < found[0]):
                raise self._wrong(f"a count goes from a smaller to a larger number, up to {MOST_REPEATS}")
            self.at = end + 1
        else:
            return None
        if self._peek() == "?":
            self.at += 1  # lazy: the same texts contain a match
        elif self._peek() in ("*", "+"):
            raise self._wrong("two repetitions in a row")
        return found

    def _count_ahead(self) -> bool:
        self.at += 1
        ahead = self._looks_like_count()
        self.at -= 1
        return ahead


def _spell_count(low: int, high: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    if (low, high) in known:
        return known[low, high]
    return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


def _literal(character: str, is_folded: bool) -> str:
    variants = _variants(character, is_folded)
    if len(variants) == 1:
        return _escaped(character)
    return f"[{''.join(map(_in_class, variants))}]"


def _escaped(character: str) -> str:
    return character if character.isalnum() or ord(character) > 127 or character in " _" else _backslashed(character)


def _in_class(character: str) -> str:
    return _backslashed(character) if character in "\\]^-[" or ord(character) < 32 else character


def _backslashed(character: str) -> str:
    named = {value: name for name, value in _CONTROLS.items()}
    if character in named:
        return "\\" + named[character]
    return character if ord(character) < 32 else "\\" + character


def _variants(character: str, is_folded: bool) -> list[str]:
    """The character and, when case does not count, its other case: by Unicode, one character for one."""
    if not is_folded:
        return [character]
    forms = (character, character.lower(), character.upper(), character.title())
    return list(dict.fromkeys(form for form in forms if len(form) == 1))


def _range(low: str, high: str, is_folded: bool) -> str:
    spelled = f"{_in_class(low)}-{_in_class(high)}"
    if not is_folded or ord(high) - ord(low) > 0x3000:
        return spelled
    inside = range(ord(low), ord(high) + 1)
    others = {v for code in inside for v in _variants(chr(code), True) if ord(v) not in inside}
    return spelled + "".join(_in_class(character) for character in sorted(others))
