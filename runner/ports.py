"""References: the text `root.member…`, and the type of what it reaches. Which connection is allowed says
`schemas.types.widens`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from runner.errors import did_you_mean
from schemas.types import ValueProblem, ValueType

INTEGER = ValueType("integer")
ANY = ValueType("any", nullable=True)
_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.([A-Za-z_][A-Za-z0-9_]*|[0-9]{1,9}|\*))*")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: `text` as written, its `root`, and the members after it (`"0"` and `"*"` among them)."""

    text: str
    root: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """One typed connection, or a pipeline's output where `target` is its name.

    `source` starts with the root (a step's id, `params`, `secrets`, `run`). `default` counts only with
    `has_default`: it is the value the reader gets when the source was skipped.
    """

    source: tuple[str, ...]
    target: tuple[str | int, ...]
    type: ValueType
    text: str
    has_default: bool = False
    default: object = field(default=None, hash=False)

    @property
    def root(self) -> str:
        """Where the value comes from: a step's id, `params`, `secrets` or `run`."""
        return self.source[0]


def parse_reference(text: object) -> Reference:
    """`create_order.id`, `find.rows.*.sku`, `params.lines.0.sku`. Raises `ValueProblem` for any other text."""
    if not isinstance(text, str) or not _REFERENCE.fullmatch(text):
        raise ValueProblem(
            f"{str(text)!r} is not a reference" if isinstance(text, str) else "wants a reference",
            why="a connection names where the value comes from: step.output, params.name, secrets.name or run.name",
            fix="write a literal under `with`, a reference here",
        )
    root, *members = text.split(".")
    return Reference(str(text), root, tuple(members))


def reach_type(source: ValueType, members: tuple[str, ...], seen: str) -> ValueType:
    """The type at the end of `members`, starting from a value of type `source` that the user wrote as `seen`.

    Raises `ValueProblem` naming the first member that is not there.
    """
    here, position = source, -1
    while position + 1 < len(members):
        position += 1
        member, rest = members[position], members[position + 1 :]
        if here.kind in ("any", "json"):
            return here if here.kind == "any" else ValueType("json", nullable=True)
        if here.kind in ("list", "rows"):
            item = _item(here)
            if member == "*":
                inner = reach_type(item, rest, f"{seen}.*")
                return ValueType("list", nullable=here.nullable, items=inner)
            if member.isdigit():
                here, seen = item, f"{seen}.{member}"
                continue
            if member == "count":
                here, seen = INTEGER, f"{seen}.count"
                continue
            raise ValueProblem(
                f"{seen!r} is {_with_article(here)} and has no {member!r}",
                why="a list or rows is reached by `*` (each), a number (one) or `count`",
                fix=f"did you mean {seen}.*.{member}?" if _has(item, member) else f"one of: {seen}.*, {seen}.count",
            )
        if here.kind == "record":
            if here.fields is None:
                return ValueType("any")  # judged when the value is there
            if member not in here.fields:
                member, rest = named(members[position:], here.fields)
                position = len(members) - len(rest) - 1
            if member not in here.fields:
                raise ValueProblem(
                    f"{seen!r} has no {member!r}" if position else f"{seen!r} has no output {member!r}",
                    why=f"it gives {', '.join(here.fields)}",
                    fix=did_you_mean(member, here.fields, prefix=f"{seen}."),
                )
            inner = here.fields[member]
            here, seen = (inner.optional() if here.nullable else inner), f"{seen}.{member}"
            continue
        raise ValueProblem(f"{seen!r} is {_with_article(here)}, it has no members", fix=f"did you mean {seen}?")
    return here


def named(members: tuple[str, ...], names: Container[str]) -> tuple[str, tuple[str, ...]]:
    """The name among `names` that the first members spell together, and the members after it: a result column may be
    called `extra.color`. The first member itself where no name is spelled.

    >>> named(("extra", "color", "0"), ["extra.color", "rows"])
    ('extra.color', ('0',))
    """
    for end in range(2, len(members) + 1):
        name = ".".join(members[:end])
        if name in names:
            return name, members[end:]
    return members[0], members[1:]


def _item(kind: ValueType) -> ValueType:
    if kind.kind == "rows":
        return ValueType("record", fields=kind.fields)
    return kind.items or ANY


def _has(kind: ValueType, member: str) -> bool:
    return kind.kind == "record" and isinstance(kind.fields, Mapping) and member in kind.fields


def _with_article(kind: ValueType) -> str:
    word = str(kind)
    if kind.kind in ("rows", "text", "json", "bytes"):
        return word
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
