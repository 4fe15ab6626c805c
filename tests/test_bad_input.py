"""Whatever a user does wrong: one clear problem with its place and its fix, the right exit status, nothing half
written; never a traceback, never a secret.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from runner.cli import main
from runner.dialects import session

PROJECT = Path(__file__).parents[1]
DFRUN = [sys.executable, "-c", "from runner.cli import main; main()"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "LC_ALL": "C.UTF-8"}
MODELS = """\
models:
  Item:
    features: {timestamps: false}
    fields:
      sku: {type: string, max_length: 8, unique: true}
      price: {type: decimal, precision: 8, scale: 2}
"""
LOAD = """\
name: load
steps:
  file: {node: csv.read, with: {path: in.csv, model: Item}}
  items: {node: Item.bulk_create, inputs: {data: file.rows}}
  save: {node: csv.write, with: {path: out/items.csv}, inputs: {rows: file.rows}, after: [items]}
"""


Dfrun = Callable[..., tuple[int, str]]


@pytest.fixture
def dfrun(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dfrun:
    """Runs the command line here; gives the exit status and all that was printed."""
    for name in ("DFRUN_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(list(words))
        told = capsys.readouterr()
        return int(str(left.value.code or 0)), told.out + told.err

    return run


def in_shell(command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in which `dfrun` is the program."""
    line = f'dfrun() {{ {shlex.join(DFRUN)} "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env=ENVIRONMENT, **options)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "load.yaml").write_text(LOAD)
    (tmp_path / "in.csv").write_text("sku,price\na,1.50\nb,2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def items(shop: Path) -> int:
    """How many rows are in the table; 0 without a database."""
    if not (shop / "dfrun.db").exists():
        return 0
    with sqlite3.connect(shop / "dfrun.db") as connection:
        is_there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'item'").fetchone()
        count = connection.execute("SELECT count(*) FROM item").fetchone()[0] if is_there else 0
    connection.close()
    return int(count)


def assert_told(done: tuple[int, str], status: int, *words: str) -> None:
    code, told = done
    assert code == status, told
    assert "Traceback" not in told and "hush" not in told
    for word in words:
        assert word in told, told


# --- the call ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["nope.yaml"], 2, "DF101 nope.yaml: there is no such file"),
        ([".", "-p", "a=1"], 2, "DF101"),
        (["models.yaml"], 2, "models.yaml:1:1: DF110 this file is not a pipeline"),
        (["in.csv"], 2, "in.csv:1:1: DF105 the file is not a mapping"),
        (["laod"], 2, "No such command 'laod'"),
        (["load.yaml", "--nope"], 2, "No such option '--nope'"),
        (["load.yaml", "-p", "x=1"], 2, "DF402 load has no parameter 'x'"),
        (["load.yaml", "--only", "fille"], 2, "fix: did you mean file?"),
        (["load.yaml", "-e", "prod"], 2, "DF407 there is no environment 'prod'"),
        (["load.yaml", "--run-id", "a b"], 2, "DF408"),
        (["load.yaml", "--params", "nope.yaml"], 2, "DF101 nope.yaml: there is no such file"),
        (["load.yaml", "--database", "mysql://u:hush@h/d"], 2, "DF420 --database: mysql is not a database dfrun runs on"),
        (["load.yaml", "--database", "hush"], 2, "DF420 --database: this is not a database URL"),
        (["load.yaml", "--database", "sqlite://"], 2, "DF420 --database: an SQLite database is a file here"),
        (["load.yaml", "--database", "sqlite:///:memory:"], 2, "fix: sqlite:///file.db"),
        (["load.yaml", "--database", "sqlite:///no/x.db"], 69, "fix: mkdir -p no"),
        (["load.yaml", "--database", "sqlite:///load.yaml"], 69, "why: this is not an SQLite database"),
        (["load.yaml", "--database", "sqlite:///new.db"], 3, "DF602 tables are missing: Item"),
        (["load.yaml", "--database", "postgresql://u:hush@127.0.0.1:1/d"], 69, "why: nothing answers there"),
        (["load.yaml", "--database", "postgresql://u:hush@h.invalid/d"], 69, "why: the host's name is unknown"),
        (["init", "in.csv"], 2, "DF505 in.csv/models.yaml cannot be written"),
        (["init"], 2, "DF410 models.yaml is there already"),
        (["nodes", "Item.crate"], 2, "did you mean Item.create?"),
        (["explain", "DF3O2"], 2, "DF409"),
        (["graph", "models.yaml"], 2, "DF110"),
        (["migrate", "apply", "nope.yaml"], 2, "DF101"),
        (["validate", "out"], 2, "DF101"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_call_is_refused(dfrun: Dfrun, shop: Path, words: list[str], status: int, told: str) -> None:
    before = sorted(shop.iterdir())
    assert_told(dfrun(*words), status, told)
    assert sorted(shop.iterdir()) == before, "a refused call leaves nothing behind"


def test_a_secret_that_is_not_there_is_told_before_the_start(dfrun: Dfrun, shop: Path) -> None:
    (shop / "load.yaml").write_text(LOAD + "secrets: {key: {env: SHOP_KEY}}\n")
    assert_told(dfrun("load.yaml"), 69, "DF421", "SHOP_KEY")
    assert items(shop) == 0


def test_a_missing_database_and_an_unknown_user_are_told(dfrun: Dfrun, shop: Path, postgres_url: sa.URL) -> None:
    url = postgres_url.set(drivername="postgresql", database="nowhere").render_as_string(hide_password=False)
    told = dfrun("load.yaml", "--database", url)
    assert_told(told, 69, "there is no such database on the server", "fix: createdb")
    other = postgres_url.set(drivername="postgresql", username="nobody", password="hush")
    told = dfrun("load.yaml", "--database", other.render_as_string(hide_password=False))
    assert_told(told, 69, "the server refuses", "fix: correct user and password")


def test_a_wrong_password_is_told(dfrun: Dfrun, shop: Path, postgres_url: sa.URL) -> None:
    """The tests' own server trusts everyone; this makes it ask one role for a password."""

    async def ask_for_passwords() -> None:
        engine = create_async_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        async with engine.connect() as connection:
            rules = Path(str((await connection.execute(sa.text("SHOW hba_file"))).scalar_one()))
            rules.write_text(
                "local all careful scram-sha-256\nhost all careful all scram-sha-256\n" + rules.read_text()
            )
            await connection.execute(sa.text("CREATE ROLE careful LOGIN PASSWORD 'right'"))
            await connection.execute(sa.text("SELECT pg_reload_conf()"))

    asyncio.run(ask_for_passwords())
    url = postgres_url.set(drivername="postgresql", username="careful", password="hush")
    told = dfrun("load.yaml", "--database", url.render_as_string(hide_password=False))
    assert_told(told, 69, "DF422", "careful:***@", "the server refuses the password", "fix: correct user and password")


# --- files with rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "DF532 file: the file 'in.csv' is empty"),
        (b"sku,prize\na,1\n", "fix: rename: {prize: price}"),
        (b"sku;price\na;1\n", 'fix: delimiter: ";"'),
        (b"sku,sku,price\na,b,1\n", "DF532 file: the header names the column 'sku' twice"),
        (b"sku,price\na,1\nb\n", "DF531 file: line 3: 1 cells, the header has 2"),
        (b"sku,price\na,1,2\n", "DF531 file: line 2: 3 cells, the header has 2"),
        (b"sku,price\na,many\n", "DF531 file: line 2: price: wants a decimal number"),
        (b"sku,price\n,1\n", "DF531 file: line 2: sku: is empty"),
        (b"sku,price\nfar_too_long,1\n", "DF531 file: line 2: sku: text of 12 characters, at most 8 are allowed"),
        (b"sku,price\na,1.999\n", "DF531 file: line 2: price: more than 2 digits after the point"),
        (b'sku,price\n"a,1\n', "DF531 file: line 2: a quote is not closed"),
        (b"sku,price\na,1\n\xe9,1\n", "DF533 file: line 3: a byte that is not utf-8"),
        ("sku,price\na,1\n".encode("utf-16"), "fix: name the file's encoding, such as encoding: utf-16"),
        (b"sku,price\na\0b,1\n", "DF531 file: line 2: sku: text with a NUL character"),
        (b"sku,price\na,1\nb,1\na,1\n", "DF580 items: Item.sku: a row with this value is there already"),
    ],
    ids=["empty", "column", "delimiter", "twice", "short", "long", "type", "null", "length", "scale", "quote", "latin",
         "utf16", "nul", "unique"],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_told_with_its_line_and_leaves_nothing(
    dfrun: Dfrun, shop: Path, content: bytes, told: str
) -> None:
    (shop / "in.csv").write_bytes(content)
    assert_told(dfrun("load.yaml"), 1, told, "load.yaml:")
    assert items(shop) == 0
    assert not list(shop.glob("out/*"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "DF530 file: there is no file 'in.csv'"),
        (lambda path: path.mkdir(), "DF530 file: 'in.csv' is a folder"),
        (lambda path: os.mkfifo(path), "DF530 file: 'in.csv' is a pipe or a device"),
    ],
    ids=["missing", "folder", "pipe"],
)
def test_what_is_no_file_is_told(dfrun: Dfrun, shop: Path, make: object, told: str) -> None:
    (shop / "in.csv").unlink()
    make(shop / "in.csv")  # type: ignore[operator]
    assert_told(dfrun("load.yaml"), 1, told)


def test_a_device_is_not_replaced_by_a_file(dfrun: Dfrun, shop: Path) -> None:
    (shop / "load.yaml").write_text(LOAD.replace("out/items.csv", "out"))
    os.mkfifo(shop / "out")
    assert_told(dfrun("load.yaml"), 1, "DF535 save: 'out' is a pipe or a device")
    assert (shop / "out").is_fifo()


# --- the surroundings -----------------------------------------------------------------------------------------------


def test_a_locked_database_is_waited_for(dfrun: Dfrun, shop: Path) -> None:
    assert dfrun("load.yaml")[0] == 0
    (shop / "load.yaml").write_text(LOAD.replace("Item.bulk_create", "Item.bulk_upsert"))
    holder = sqlite3.connect(shop / "dfrun.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(1, lambda: (holder.execute("COMMIT"), holder.close()))
    timer.start()
    assert_told(dfrun("load.yaml"), 0, "load succeeded")
    timer.join()


def test_a_database_that_stays_locked_is_told(dfrun: Dfrun, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dfrun("load.yaml")[0] == 0
    (shop / "one.yaml").write_text("name: one\nsteps: {a: {node: Item.create, with: {sku: z, price: 1}, undo: auto}}\n")
    assert dfrun("one.yaml", "--run-id", "first")[0] == 0
    pragmas = tuple(each for each in session._PRAGMAS if "busy_timeout" not in each)
    monkeypatch.setattr(session, "_PRAGMAS", (*pragmas, "busy_timeout=20"))
    holder = sqlite3.connect(shop / "dfrun.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    told = "DF582 the database file is locked by another process"
    assert_told(dfrun("load.yaml"), 75, told, "fix: wait until the other process is done")
    assert_told(dfrun("undo", "first"), 75, told)
    holder.execute("COMMIT")
    holder.close()


def test_a_full_disk_leaves_nothing_half_written(shop: Path) -> None:
    rows = "".join(f"s{n},{n % 999}.50\n" for n in range(6_000))
    (shop / "in.csv").write_text(f"sku,price\n{rows}")
    # no file may grow past 250 KiB: what a full disk does, without the right to make one
    done = in_shell('ulimit -f 250; trap "" XFSZ; dfrun load.yaml')
    told = (done.returncode, done.stdout + done.stderr)
    assert_told(told, 1, "DF585 items: reading or writing the database file failed", "fix: look at the disk")
    assert items(shop) == 0
    text = LOAD.replace("  items:", "  it:").replace("after: [items]", "after: []")
    (shop / "load.yaml").write_text(f"ledger: off\n{text}")
    done = in_shell('ulimit -f 30; trap "" XFSZ; dfrun load.yaml --only save')
    told = (done.returncode, done.stdout + done.stderr)
    assert_told(told, 1, "DF535 save: the file 'out/items.csv' cannot be written: File too large")
    assert not list(shop.glob("out/*"))


def test_a_place_that_may_not_be_written_is_told(dfrun: Dfrun, shop: Path) -> None:
    assert_told(dfrun("load.yaml", "--database", "sqlite:////proc/x.db"), 3, "DF602")
    (shop / "dfrun.yaml").write_text("migrate: auto\n")
    told = "fix: is the folder there, and may you write in it?"
    assert_told(dfrun("load.yaml", "--database", "sqlite:////proc/x.db"), 69, "DF422", told)
    (shop / "load.yaml").write_text(LOAD.replace("out/items.csv", "/proc/out/items.csv"))
    assert_told(dfrun("load.yaml"), 1, "DF535 save: the file '/proc/out/items.csv' cannot be written")


@pytest.mark.parametrize("output", ["text", "jsonl"])
def test_a_reader_that_leaves_does_not_stop_a_run(shop: Path, output: str) -> None:
    done = in_shell(f"dfrun load.yaml -o {output} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (141, "")
    assert items(shop) == 2


def test_output_that_cannot_be_written_is_told(shop: Path) -> None:
    done = in_shell("dfrun load.yaml >/dev/full")
    assert (done.returncode, done.stderr) == (1, "DF505 the system refused: No space left on device\n")
    assert items(shop) == 2


def test_closed_streams_are_no_files_of_the_database(shop: Path) -> None:
    assert in_shell("dfrun load.yaml <&- >&- 2>&-").returncode == 0
    assert items(shop) == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_keeps_all_or_nothing_of_a_step(shop: Path, number: signal.Signals, status: int) -> None:
    (shop / "in.csv").write_text("sku,price\n" + "".join(f"s{n},1\n" for n in range(200_000)))
    running = subprocess.Popen(
        [*DFRUN, "load.yaml", "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    assert running.stdout is not None
    for line in running.stdout:
        if '"step_progress", "step": "items"' in line:
            break
    running.send_signal(number)
    time.sleep(0.3)
    running.send_signal(number)  # the second one leaves at once
    _, told = running.communicate(timeout=30)
    assert "stopping: running steps have 10 s to end; again leaves at once" in told
    assert running.returncode == status
    assert items(shop) in (0, 200_000)
    assert not list(shop.glob("out/*.csv"))
