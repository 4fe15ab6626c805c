"""Golden plans: what the graph of a pipeline is, step by step, so that a change of it is seen where it is made.

`DFRUN_WRITE_GOLDEN=1` writes them anew: read the difference before you keep it.
"""

import os
import shutil
from pathlib import Path

import pytest

from runner.drawing import graph_text
from runner.loading import load

PROJECT = Path(__file__).parents[2]
PLANS = PROJECT / "tests" / "plans"
FILES = {
    path.stem: path
    for path in sorted([*PLANS.glob("*.yaml"), *(PROJECT / "pipelines").rglob("*.yaml")])
    if path.name != "models.yaml"
}


@pytest.mark.parametrize("name", FILES)
def test_a_pipeline_has_this_plan(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, golden = FILES[name], PLANS / f"{name}.out"
    if file.is_relative_to(PROJECT / "pipelines"):  # away from what its runs leave behind
        shutil.copytree(PROJECT / "pipelines", tmp_path / "pipelines")
        shutil.copy(PROJECT / "models.yaml", tmp_path)
        file = tmp_path / file.relative_to(PROJECT)
    monkeypatch.chdir(file.parent)
    told = graph_text(load(Path(file.name)).graph) + "\n"
    if os.environ.get("DFRUN_WRITE_GOLDEN"):
        golden.write_text(told)
    assert told == golden.read_text()


def test_each_plan_has_its_pipeline() -> None:
    assert {path.stem for path in PLANS.glob("*.out")} == set(FILES)
