"""YAML text becomes a tree of scalars, lists and mappings that knows the place of every key and value.

Built from PyYAML's events, because its constructors change values (`no`, `010`, the last of two equal keys). Limits are
counted while the events come, aliases at their expanded size, so that no file can exhaust the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import yaml

from runner.errors import DefinitionError, Place, Problem
from schemas.base import Scalar

FILE_BYTES = 1024 * 1024
SCALAR_BYTES = 64 * 1024
DEPTH = 64
NODES = 100_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = ("", "~", "null", "Null", "NULL")
_TEMPLATE = re.compile(r"\$\{|\{\{")
_REFERENCE = re.compile(r"(?:\$\{|\{\{)\s*([A-Za-z_][\w.*]*)\s*(?:\}\}|\})")
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")

Span = tuple[int, int, int]
"""Line and column counted from 0, and the width in characters."""
Path_ = tuple[str | int, ...]


class Mapping(dict[str, object]):
    """A mapping with the spans of its keys and values."""

    __slots__ = ("key_spans", "span", "value_spans")

    def __init__(self, span: Span) -> None:
        super().__init__()
        self.span = span
        self.key_spans: dict[str, Span] = {}
        self.value_spans: dict[str, Span] = {}


class Sequence(list[object]):
    """A list with the spans of its elements."""

    __slots__ = ("span", "value_spans")

    def __init__(self, span: Span) -> None:
        super().__init__()
        self.span = span
        self.value_spans: list[Span] = []


@dataclass(frozen=True, slots=True)
class Document:
    """One file, read. `name` is what messages call it."""

    name: str
    text: str
    root: Mapping = field(hash=False)

    @property
    def lines(self) -> list[str]:
        """The text line by line."""
        return self.text.splitlines()

    def at(self, path: Path_) -> object:
        """What stands at `path`, None where nothing does."""
        here: object = self.root
        for step in path:
            if isinstance(here, Mapping):
                here = here.get(str(step))
            elif isinstance(here, Sequence) and isinstance(step, int) and step < len(here):
                here = here[step]
            else:
                return None
        return here

    def place(self, path: Path_, key: bool = False) -> Place:
        """Where the value (or with `key` the key) at `path` stands; where the path ends early, its last known part."""
        here: object = self.root
        span = self.root.span
        for position, step in enumerate(path):
            is_last = position == len(path) - 1
            if isinstance(here, Mapping) and step in here:
                span = (here.key_spans if is_last and key else here.value_spans)[str(step)]
                here = here[str(step)]
            elif isinstance(here, Sequence) and isinstance(step, int) and step < len(here):
                span = here.value_spans[step]
                here = here[step]
            else:
                if position:  # a key that is missing is best shown at the key of the mapping it is missing from
                    return self.place(path[:position], key=isinstance(here, Mapping))
                break
        return _place(self.name, span)


def read_document(path: Path, shown: str | None = None) -> Document:
    """The document in a file. Raises `DefinitionError` (DF101 to DF109) when it cannot be read or is not one."""
    name = shown or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot read: {error.strerror}"
        raise DefinitionError(Problem("DF101", f"{name}: {reason}", fix="check the path")) from None
    return parse_document(content, name)


def parse_document(content: bytes, name: str) -> Document:
    """The document in `content`, UTF-8 with or without a byte-order mark. Raises as `read_document` does."""
    if len(content) > FILE_BYTES:
        raise DefinitionError(
            Problem("DF102", f"{name} is larger than {FILE_BYTES // 1024} KiB", Place(name, 1, 1), fix="split it up")
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem("DF103", "the file is not UTF-8", Place(name, line, column), fix="save it as UTF-8")
        raise DefinitionError(problem) from None
    hidden = _INVISIBLE.search(text)
    if hidden:
        line = text.count("\n", 0, hidden.start()) + 1
        column = hidden.start() - text.rfind("\n", 0, hidden.start())
        what = f"an invisible character (U+{ord(hidden.group()):04X})"
        raise DefinitionError(Problem("DF103", what, Place(name, line, column, 1), fix="remove it"))
    return Document(name, text, _Composer(text, name).compose())


class _Composer:
    """Builds the tree of one document; problems that leave the structure whole are collected."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.text = text
        self.problems: list[Problem] = []
        self.path: list[str] = []
        self.anchors: dict[str, tuple[object, int]] = {}
        self.nodes = 0

    def compose(self) -> Mapping:
        try:
            self.events: Iterator[yaml.Event] = yaml.parse(self.text, Loader=_LOADER)
            root = self._document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(self.name, mark.line + 1, mark.column + 1) if mark else Place(self.name, 1, 1)
            what = f"not YAML: {error.problem or error.context or 'the text breaks off'}"
            raise DefinitionError([*self.problems, Problem("DF104", what, place)]) from None
        except yaml.YAMLError:
            raise DefinitionError(Problem("DF104", "not YAML", Place(self.name, 1, 1))) from None
        if self.problems:
            raise DefinitionError(self.problems[:20])
        if not isinstance(root, Mapping):
            raise DefinitionError(
                Problem("DF105", "the file is not a mapping", Place(self.name, 1, 1),
                        "a file says what it is by its top-level keys", "start with `models:` or `steps:`")
            )  # fmt: skip
        return root

    def _document(self) -> object:
        root: object = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop("DF105", "a second document", event, "a file holds one document", "make it a file")
                if event.tags or event.version:
                    self._stop("DF106", "a directive", event, "directives are not part of the language", "remove it")
            elif isinstance(event, yaml.NodeEvent):
                root, _ = self._node(event, 1, literal=False)
        return root

    def _node(self, event: yaml.NodeEvent, depth: int, literal: bool) -> tuple[object, int]:
        """The value that begins with `event`, and how many nodes it counts with aliases expanded."""
        if depth > DEPTH:
            self._stop("DF102", f"more than {DEPTH} levels deep", event, "", "flatten it")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor is None or event.anchor not in self.anchors:
                self._stop("DF104", f"there is no anchor {event.anchor!r} before this", event, "", "")
            value, size = self.anchors[event.anchor]
            self._count(size, event)
            return value, size
        self._count(1, event)
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._add("DF106", f"the tag {tag!r}", event, "the model decides the type, not a tag", "remove the tag")
        if isinstance(event, yaml.ScalarEvent):
            value, size = self._scalar(event, literal), 1
        elif isinstance(event, yaml.SequenceStartEvent):
            value, size = self._sequence(event, depth, literal)
        else:
            value, size = self._mapping(event, depth, literal)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, size)
        return value, size

    def _scalar(self, event: yaml.ScalarEvent, literal: bool) -> Scalar | None:
        plain = not event.style  # libyaml says '' for a plain scalar, the Python parser None
        if len(event.value) > SCALAR_BYTES:
            self._stop("DF102", f"a text longer than {SCALAR_BYTES // 1024} KiB", event, "", "keep data in a file")
        if plain and event.value in _NULLS:
            return None
        if not literal and _TEMPLATE.search(event.value):
            self._add("DF107", "a template in a string", event, "data moves along connections, never through strings",
                      f"{self._connection(event.value)}; {{$literal: …}} holds text that truly has it")  # fmt: skip
        return Scalar(event.value, plain)

    def _connection(self, text: str) -> str:
        """The line that was meant by a template: the connection that fills the same place."""
        inner = _REFERENCE.search(text)
        meant = inner.group(1).removeprefix("steps.").removeprefix("nodes.") if inner else "step.output"
        below = next((i for i in range(len(self.path) - 1, -1, -1) if self.path[i] in ("with", "inputs")), None)
        port = ".".join(self.path[below + 1 :]) if below is not None else ""
        if inner is not None and inner[0] != text:
            return f"a text.format step joins texts, and inputs: {{{port or '…'}: STEP.text}} takes it"
        return f"inputs: {{{port or '…'}: {meant}}}"

    def _sequence(self, event: yaml.Event, depth: int, literal: bool) -> tuple[Sequence, int]:
        items, total = Sequence(_span(event)), 1
        for inner in self.events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            assert isinstance(inner, yaml.NodeEvent)
            value, size = self._node(inner, depth + 1, literal)
            items.append(value)
            items.value_spans.append(_span(inner))
            total += size
        return items, total

    def _mapping(self, event: yaml.Event, depth: int, literal: bool) -> tuple[Mapping, int]:
        mapping, total = Mapping(_span(event)), 1
        for inner in self.events:
            if isinstance(inner, yaml.MappingEndEvent):
                break
            key = inner.value if isinstance(inner, yaml.ScalarEvent) else None
            if key is None:
                self._stop("DF108", "a key that is not text", inner, "", "write the key as one word")
            if key == "<<":
                self._add(
                    "DF106", "a merge key", inner, "what a place holds stands in that place", "write the keys out"
                )
            elif key in mapping:
                first = mapping.key_spans[key][0] + 1
                self._add("DF108", f"the key {key!r} stands twice", inner, f"it stands in line {first}, too",
                          "keep one of the two")  # fmt: skip
            following = next(self.events)
            assert isinstance(following, yaml.NodeEvent)  # a key is always followed by its value
            self.path.append(key)
            value, size = self._node(following, depth + 1, literal or key == "$literal")
            self.path.pop()
            if key not in mapping:
                mapping[key] = value
                mapping.key_spans[key] = _span(inner)
                mapping.value_spans[key] = _span(following)
            total += size
        return mapping, total

    def _count(self, nodes: int, event: yaml.Event) -> None:
        self.nodes += nodes
        if self.nodes > NODES:
            self._stop("DF102", f"more than {NODES} values, aliases expanded", event, "", "split it up")

    def _add(self, code: str, what: str, event: yaml.Event, why: str, fix: str) -> None:
        self.problems.append(Problem(code, what, _place(self.name, _span(event)), why, fix))

    def _stop(self, code: str, what: str, event: yaml.Event, why: str, fix: str) -> NoReturn:
        self._add(code, what, event, why, fix)
        raise DefinitionError(self.problems)


def _span(event: yaml.Event) -> Span:
    start, end = event.start_mark, event.end_mark
    assert start is not None and end is not None  # every event of a parsed text has both
    return start.line, start.column, end.column - start.column if end.line == start.line else 0


def _place(name: str, span: Span) -> Place:
    return Place(name, span[0] + 1, span[1] + 1, span[2])
