"""Reads a page of the documentation into blocks, and does what each says. `docs/contributing.md` tells the convention."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)
SHOWN_DATABASE = "postgresql://localhost/shop"
"""The address that stands in the pages for a PostgreSQL of the reader's own."""
UNCHECKED = ("text", "sql", "json", "python", "csv", "jsonl", "mermaid")
"""Languages that may stand without a file's name: shown, not run. What a command prints stands under `console`."""

_VARYING = (
    (re.compile(r"\b\d+(?:\.\d+)? (?:ms|s)\b"), "0 s"),
    (re.compile(r'("duration_ms": )\d+(?:\.\d+)?'), r"\g<1>0"),
    (re.compile(r"\b[\d,]+/s\b"), "0/s"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"), "INSTANT"),
    (re.compile(r"[ \t]+"), " "),
)
"""What differs from run to run, and how wide it made the columns beside it."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the other words of its info string, its text and the line it starts on."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Command:
    """A line after `$`, the exit status it must have (`# exit 2`; 0 without it), and the lines it must print (None:
    any)."""

    text: str
    status: int
    output: str | None


def read_blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in FENCE.finditer(page):
        language, *words = found["info"].split() or [""]
        indent = len(found["indent"])
        text = "".join(line[indent:] if line.strip() else line for line in found["text"].splitlines(keepends=True))
        yield Block(language, tuple(words), text, page.count("\n", 0, found.start()) + 1)


def read_commands(text: str) -> list[Command]:
    """The commands of a `console` block."""
    commands = []
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        line, _, output = part.partition("\n")
        while line.endswith("\\"):
            more, _, output = output.partition("\n")
            line = f"{line}\n{more}"
        asked = re.search(r"\s+# exit (\d+)$", line)
        status = int(asked[1]) if asked else 0
        commands.append(Command(line[: asked.start()] if asked else line, status, output.rstrip("\n") or None))
    return commands


def run_command(command: Command, folder: Path, environment: Mapping[str, str], database: str) -> str:
    """What is wrong with the command: "" when it ended and printed as the page says."""
    line = command.text.replace(SHOWN_DATABASE, database or SHOWN_DATABASE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        stdin=subprocess.DEVNULL, env={"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", **environment},
    )  # fmt: skip
    printed = done.stdout.replace(database or SHOWN_DATABASE, SHOWN_DATABASE).replace(str(folder), "/shop").rstrip("\n")
    if done.returncode != command.status:
        return f"{command.text}: exit {done.returncode}, the page says {command.status}\n{printed}"
    if command.output is None or _is_alike(command.output, printed):
        return ""
    return f"{command.text}: prints something else\n" + "\n".join(
        difflib.unified_diff(command.output.splitlines(), printed.splitlines(), "page", "printed", lineterm="")
    )


def _is_alike(shown: str, printed: str) -> bool:
    """Whether the output is as shown: `…` stands for anything within a line, a line of its own for any lines."""
    pattern = []
    for line in shown.splitlines():
        if line.strip() == "…":
            pattern.append(r"(?:.*\n)*?")
        else:
            pattern.append(".*".join(re.escape(part) for part in _plain(line).split("…")) + "\n")
    return re.fullmatch("".join(pattern), "".join(f"{_plain(line)}\n" for line in printed.splitlines())) is not None


def _plain(line: str) -> str:
    for varying, stand_in in _VARYING:
        line = varying.sub(stand_in, line)
    return line.rstrip()
