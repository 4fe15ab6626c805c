"""The verbs of `dfrun migrate` as a user calls them: what they print, how they end, what they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from warm import Warm

from tests.migrate.test_changes import BASE

Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with models."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "models.yaml").write_text(BASE)
    return folder


@pytest.fixture
def told(warm: Warm, folder: Path) -> Told:
    """Runs `dfrun migrate WORDS` in a process of its own: status, output, problems."""

    def call(*words: str) -> tuple[int, str, str]:
        process = warm.start(folder, ("migrate", *words), {})
        code = process.wait()
        out, err = process.out.read_text(), process.err.read_text()
        assert "Traceback" not in err and "this is a bug" not in err, err
        return code, out, err

    return call


@pytest.mark.parametrize(
    "words", ["plan", "status", "history", "drift", "export", "prune-hints", "purge", "rollback --plan"]
)
def test_looking_leaves_no_file_behind(told: Told, folder: Path, words: str) -> None:
    code, _, _ = told(*words.split())
    assert code == (3 if "rollback" in words else 0)
    assert [path.name for path in folder.iterdir()] == ["models.yaml"]
