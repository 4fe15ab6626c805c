"""Every code has a row; the examples of the offline ones are as wrong, and as right, as they say."""

import os
import re
from pathlib import Path

import pytest

from runner import api, report
from runner.codes import Code, codes, shop
from runner.errors import DefinitionError

PROJECT = Path(__file__).parents[2]
GOLDEN = PROJECT / "tests" / "problems"
OFFLINE = [code for code in codes().values() if code.code < "DF4"]


def problems_of(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    name = "models.yaml" if text.startswith("models:") else "pipeline.yaml"
    Path("models.yaml").write_text(shop(), encoding="utf-8")
    Path(name).write_text(text, encoding="utf-8")
    try:
        problems = [warning for file in api.check(Path(name)) for warning in file.warnings]
    except DefinitionError as error:
        problems = list(error.problems)
    told = report.problems_text(problems, lambda file: Path(file).read_text(encoding="utf-8").splitlines())
    return told + "\n" if told else ""


def test_every_code_that_is_used_has_a_row_and_every_row_a_use() -> None:
    used = set()
    for path in [*(PROJECT / "runner").rglob("*.py")]:
        used |= set(re.findall(r'"(DF\d{3})"', path.read_text(encoding="utf-8")))
    assert used == set(codes())


@pytest.mark.parametrize("code", OFFLINE, ids=lambda code: code.code)
def test_the_wrong_example_shows_its_problem(code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = problems_of(code.wrong, tmp_path, monkeypatch)
    golden = GOLDEN / f"{code.code}.out"
    if os.environ.get("DFRUN_WRITE_GOLDEN"):
        golden.write_text(told, encoding="utf-8")
    assert re.search(rf"^(\S+:\d+:\d+: )?{code.code} ", told), told
    assert len(re.findall(r"^(?:\S+:\d+:\d+: )?DF\d{3} ", told, re.M)) == 1, told
    assert told == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", OFFLINE, ids=lambda code: code.code)
def test_the_right_example_is_right(code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems_of(code.right, tmp_path, monkeypatch) == ""
