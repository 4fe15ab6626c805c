"""The verbs of `dfrun migrate` as a user calls them: what they print, how they end, what they leave."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from warm import Warm

from runner.dialects.session import open_engine
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, ROWS, changed

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


@dataclass
class There:
    """Runs `dfrun migrate WORDS` on a database; gives what was told, problems included."""

    told: Told
    url: str

    def __call__(self, *words: str, code: int = 0) -> str:
        found, out, err = self.told(*words, "--database", self.url)
        assert found == code, out + err
        return out + err


@pytest.fixture(params=["sqlite", "postgresql"])
def there(request: pytest.FixtureRequest, told: Told, folder: Path) -> There:
    """A database with the tables and two rows of each, by two migrations."""
    is_sqlite = request.param == "sqlite"
    found = There(told, f"sqlite:///{folder}/shop.db" if is_sqlite else request.getfixturevalue("fresh_postgres"))
    found("apply")
    (folder / "migrations").mkdir()
    steps = [{"sql": row, "down": "DELETE FROM customer"} for row in ROWS]
    (folder / "migrations" / "rows.yaml").write_text(json.dumps({"migration": "rows", "steps": steps}))
    found("apply")
    return found


MARKED = changed("note: string?", "note: string?\n      mark: {type: string, default: 'a:b', index: true}")
DROPPED = changed("      note: string?\n", "")


def test_a_migration_is_taken_back_by_its_number_and_its_losses_are_told_first(there: There, folder: Path) -> None:
    (folder / "models.yaml").write_text(
        changed("note: string?", "note: string?\n      paid: {type: string, default: 'no'}")
    )
    there("apply")
    told = there("rollback", "--plan")
    assert "with loss: drop_column:order.paid (2 rows of order have a value in paid, which goes to the trash)" in told
    assert told.endswith("not fully reversible\n")
    assert "DF614 drop_column:order.paid is HIGH" in there("rollback", "-y", code=3)
    record = json.loads(there("rollback", "3", "--allow", "drop_column:order.paid", "-o", "json"))
    assert (record["status"], record["migration"]) == ("applied", 4)
    assert "DF619 there is no migration 99 to take back" in there("rollback", "99", code=3)
    listed = json.loads(there("history", "-o", "json"))
    assert [(m["kind"], m["status"]) for m in listed["migrations"]] == [
        ("apply", "applied"), ("apply", "applied"), ("apply", "rolled_back"), ("rollback", "applied"),
    ]  # fmt: skip
    assert listed["metrics"]["count"] == 4


def test_the_trash_is_listed_and_emptied_when_it_is_said(there: There, folder: Path) -> None:
    (folder / "models.yaml").write_text(DROPPED)
    there("apply", "--allow", "drop_column:order.note")
    assert "nothing was dropped: --yes drops them" in there("purge", "--older-than", "0d")
    assert there("purge") == "the trash is empty\n"  # nothing is older than 30 days
    assert json.loads(there("purge", "--older-than", "0d", "-y", "-o", "json"))["purged"]
    assert there("purge", "--older-than", "0d") == "the trash is empty\n"
    assert "DF625" in there("purge", "--older-than", "month", code=2)


def test_an_exported_revision_leads_where_an_apply_would(there: There, folder: Path) -> None:
    (folder / "models.yaml").write_text(MARKED)
    script = there("export")
    assert 'ALTER TABLE "order" ADD COLUMN' in script
    assert script.count("BEGIN") == script.count("COMMIT") > 0
    revision = there("export", "--alembic", "--message", "add a mark", "--down-revision", "abc")
    assert revision.startswith('"""add a mark\n') and "down_revision = 'abc'" in revision
    upgrade, downgrade = (node for node in ast.parse(revision).body if isinstance(node, ast.FunctionDef))
    assert ("autocommit_block" in ast.unparse(upgrade)) == ("CONCURRENTLY" in ast.unparse(upgrade))
    assert "op.execute" in ast.unparse(downgrade) or "NotImplementedError" in ast.unparse(downgrade)
    texts = [
        str(sa.text(ast.literal_eval(node.args[0])).compile())  # as op.execute() reads it: `:b` would be a parameter
        for node in ast.walk(upgrade)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "op.execute"
    ]
    assert any("'a:b'" in text for text in texts)
    Shop(open_engine(there.url, poolclass=sa.NullPool)).run(*texts)
    assert "nothing to do: the tables are as the models say" in there("plan")


def test_hints_that_are_spent_are_listed(there: There, folder: Path) -> None:
    (folder / "models.yaml").write_text(changed("name: string", "full_name: {type: string, renamed_from: name}"))
    assert there("prune-hints") == ""
    there("apply")
    assert there("prune-hints") == "Customer.full_name: renamed_from name\n"


def test_statements_by_hand_are_looked_through(told: Told, folder: Path) -> None:
    assert told("lint") == (0, "nothing to tell\n", "")
    (folder / "migrations").mkdir()
    (folder / "migrations" / "m.yaml").write_text("migration: m\nsteps:\n  - sql: DROP TABLE customer\n")
    code, _, err = told("lint")
    assert (code, err.splitlines()[0]) == (2, "migrations/m.yaml:3:10: DF626 data that is gone for good")
    code, out, _ = told("lint", "-o", "json")
    assert (code, json.loads(out)["problems"][0]["code"]) == (2, "DF626")


def test_status_drift_and_check_say_what_differs(there: There, folder: Path) -> None:
    assert "nothing to do: the tables are as the models say\nthe lock is free" in there("status", "--check")
    assert there("drift", "--check") == "changed by hand:\n  none\npending:\n  none\nunmanaged:\n  none\n"
    (folder / "models.yaml").write_text(DROPPED)
    assert "pending: plan" in there("status", "--check", code=6)
    assert "drop_column:order.note" in there("drift", "--check", code=6)
    there("plan", "--check", code=6)


def test_a_plan_file_is_applied_as_it_was_reviewed(there: There, folder: Path) -> None:
    (folder / "models.yaml").write_text(DROPPED)
    plan = there("plan", "--allow", "drop_column:order.note", "-o", "yaml")
    (folder / "plan.yaml").write_text(plan)
    (folder / "edited.yaml").write_text(plan.replace("brief", "alone"))
    assert "DF612 the plan was edited" in there("apply", "edited.yaml", code=2)
    assert "applied migration 3: 1 change, HIGH" in there("apply", "plan.yaml")
    assert "nothing to do" in there("apply", "plan.yaml")


def test_a_webhook_is_told_only_where_its_host_is_allowed(told: Told, folder: Path) -> None:
    hook = "migrations:\n  webhook: {url: 'https://elsewhere.example.org/x', hosts: [hooks.example.org]}\n"
    (folder / "dfrun.yaml").write_text(hook)
    code, _, err = told("apply")
    assert (code, err.partition(" ")[0]) == (2, "DF627")
    assert "hosts: [elsewhere.example.org]" in err


@pytest.mark.parametrize(("answers", "code"), [([""], 3), (["order", ""], 3), (["order", "y"], 0)])
def test_on_a_terminal_the_plan_is_shown_and_the_default_is_no(
    told: Told, folder: Path, answers: list[str], code: int
) -> None:
    """A HIGH change wants the name of its table, then the whole plan a yes."""
    assert told("apply")[0] == 0
    (folder / "models.yaml").write_text(DROPPED)
    ours, theirs = pty.openpty()
    words = [
        sys.executable,
        "-P",
        "-c",
        "from runner.cli import main; main()",
        "migrate",
        "apply",
        "--max-risk",
        "HIGH",
    ]
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        words, cwd=folder, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as asked:
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        out = asked.communicate(timeout=60)[0].decode()
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == code, out
    assert "drop_column order.note" in out and "type order to allow it" in out
    assert ("apply this plan? [y/N]" in out) == (answers[0] == "order")
