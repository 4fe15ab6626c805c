"""Backups of the whole database before a migration that is more than harmless: SQLite's copy, and the user's command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.errors import TablesError
from runner.migrate.commandbackup import BackupCommand
from runner.migrate.history import Migration
from tests.migrate.conftest import Shop
from tests.migrate.test_changes import BASE, CHANGES, ROWS

AFTER = CHANGES["another check"][0]


def command(folder: Path, script: str, seconds: float = 20) -> BackupCommand:
    return BackupCommand(("sh", "-c", script), folder, folder / "kept", seconds)


def last(shop: Shop) -> Migration:
    return asyncio.run(shop.migrator(BASE).history())[0][-1]


def test_a_command_makes_a_backup_and_its_file_is_recorded(shop: Shop, tmp_path: Path) -> None:
    copies = command(tmp_path, 'echo "$DFRUN_DATABASE_URL" > "$DFRUN_BACKUP_FILE"')
    shop.apply(BASE, backup=copies)
    assert not (tmp_path / "kept").exists()  # creating tables is harmless
    assert shop.apply(AFTER, backup=copies).status == "applied"
    (file,) = (tmp_path / "kept").iterdir()
    assert file.read_text().startswith(f"{shop.database}://")
    files = [(b.name, b.kept) for b in last(shop).backups if b.kind == "file"]
    assert (file.name, str(file.stat().st_size)) in files
    assert len(files) == (2 if shop.database == "sqlite" else 1)


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("echo a@example.org >&2; exit 3", "the backup command 'sh' ended with status 3"),
        ("sleep 30", "the backup command 'sh' took longer than 0.2 s"),
    ],
)
def test_nothing_is_changed_when_the_backup_fails(shop: Shop, tmp_path: Path, script: str, what: str) -> None:
    shop.apply(BASE)
    shop.run(*ROWS)
    with pytest.raises(TablesError) as caught:
        shop.apply(AFTER, backup=command(tmp_path, script, 0.2 if "sleep" in script else 20))
    (problem,) = caught.value.problems
    assert (problem.code, problem.what) == ("DF622", what)
    assert last(shop).kind == "apply" and last(shop).status == "applied"
    assert set(shop.plan(AFTER).changes) == {"change_check:order.ck_check_order_total"}
    assert asyncio.run(shop.migrator(BASE).history())[0][1:] == ()


def test_a_command_that_is_not_there_is_named(shop: Shop, tmp_path: Path) -> None:
    shop.apply(BASE)
    missing = BackupCommand(("pg_dumb",), tmp_path, tmp_path, 5)
    with pytest.raises(TablesError) as caught:
        shop.apply(AFTER, backup=missing)
    assert caught.value.problems[0].what == "the backup command 'pg_dumb' cannot be started"
    assert shop.apply(AFTER).status == "applied"


def test_what_a_command_kept_is_no_trash_and_in_no_way_of_a_rollback(shop: Shop, tmp_path: Path) -> None:
    from datetime import timedelta

    from tests.migrate.test_rollback import take_back

    shop.apply(BASE)
    shop.apply(AFTER, backup=command(tmp_path, "true"))
    assert asyncio.run(shop.migrator(AFTER).kept(timedelta(0))) == []
    assert take_back(shop, AFTER).status == "applied"
    assert shop.plan(BASE).steps == ()
