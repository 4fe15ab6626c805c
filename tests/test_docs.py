"""Every YAML and every printed output of the README and the pages under docs/ is as the program has it."""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from docpages import UNCHECKED, Block, read_blocks, read_commands, run_command

from runner import api
from runner.cli import group
from runner.codes import codes
from runner.errors import DefinitionError
from runner.jsonschema import declarations, key_sentences
from runner.nodes import BUILT_IN_KINDS, MODEL_KINDS
from schemas.aggregates import OPERATORS as AGGREGATES
from schemas.filters import OPERATORS as FILTERS
from schemas.updates import OPERATORS as UPDATES

PROJECT = Path(__file__).parents[1]
GENERATE = runpy.run_path(str(PROJECT / "docs" / "generate.py"))
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_a_page_is_as_the_program_has_it(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(PROJECT / "models.yaml", tmp_path)
    shutil.copytree(PROJECT / "pipelines", tmp_path / "pipelines", ignore=shutil.ignore_patterns("out"))
    text = page.read_text(encoding="utf-8")
    blocks = list(read_blocks(text))
    assert len(blocks) * 2 == len(re.findall(r"^ *```", text, re.M)), "a fence is not closed"
    database = request.getfixturevalue("fresh_postgres") if "postgresql://localhost/shop" in text else ""
    wrong = []
    for block in blocks:
        try:
            wrong += [f"{page.name}:{block.line}: {each}" for each in _do(block, tmp_path, database)]
        except DefinitionError as error:
            wrong.append(f"{page.name}:{block.line}: {error}")
    assert not wrong, "\n\n".join(wrong)


def _do(block: Block, folder: Path, database: str) -> Iterator[str]:
    """Do what a block says; what is wrong with it."""
    name = next((word for word in block.words if "." in word), None)
    if name is not None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block.text, encoding="utf-8")
    match block.language:
        case "yaml":
            yield from _check(block, folder / (name or "example.yaml"))
        case "console":
            commands = read_commands(block.text)
            if not commands:
                yield "a console block without a command: begin its line with `$ `"
            for command in commands:
                told = run_command(command, folder, {}, database)
                if told:
                    yield told
        case "sh":
            pass  # what sets everything up: .ci/run does it, word for word, in a fresh clone
        case language if language in UNCHECKED or name is not None:
            pass
        case language:
            yield f"a block of {language or 'no language'}: one of yaml, console, {', '.join(UNCHECKED)}"


def _check(block: Block, file: Path) -> Iterator[str]:
    """A YAML block stands as a whole file, or as steps of one; valid, or refused where it says `wrong`."""
    if not file.exists():
        text = block.text
        if not re.search(r"^(models|steps|tests):", text, re.M):
            text = "steps:\n" + re.sub(r"^(?=.)", "  ", text, flags=re.M)
        if re.search(r"^steps:", text, re.M) and not re.search(r"^name:", text, re.M):
            text = f"name: example\n{text}"
        file.write_text(text, encoding="utf-8")
    try:
        problems = [warning for checked in api.check(file) for warning in checked.warnings]
    except DefinitionError as error:
        problems = list(error.problems)
    if problems and "wrong" not in block.words:
        yield "\n".join(map(str, problems))
    if not problems and "wrong" in block.words:
        yield "is said to be wrong, and nothing is wrong with it"
    if file.name == "example.yaml":
        file.unlink()


def test_the_generated_parts_are_up_to_date() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert GENERATE["render"](text) == text, f"{page.name} is out of date: run python docs/generate.py"


def test_whatever_has_a_name_is_in_the_docs() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = [*FILTERS, *UPDATES, *AGGREGATES, "$and", "$or", "$not"]
    names += [f"{'Customer' if kind.endswith('upsert') else 'Order'}.{kind}" for kind in MODEL_KINDS]
    lines = [f"### {kind}" for kind in BUILT_IN_KINDS] + [f"## {code}" for code in codes()]
    lines += [f"## {' '.join(path)}" for path, _ in GENERATE["_commands"](group, ())]
    missing = [name for name in names if f"`{name}`" not in text]
    missing += [line for line in lines if f"\n{line}\n" not in text]
    for declaration in declarations().values():
        keys = {field.alias or name for name, field in declaration.model_fields.items()}
        missing += [f"{declaration.__name__}.{key}" for key in keys - key_sentences(declaration).keys()]
    assert not missing, f"the docs do not name {', '.join(missing)}"
