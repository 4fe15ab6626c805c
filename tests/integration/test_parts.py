"""A load that commits in parts goes on behind the last one, on both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from durable import Project
from warm import Warm

LOAD = """
read: {node: csv.read, with: {path: in.csv, columns: {sku: string, stock: integer}}}
load:
  node: Item.bulk_create
  with: {batch_size: 3, commit: batch, %s}
  inputs: {data: read.rows}
"""


def write_rows(project: Project, count: int, but: str = "") -> None:
    rows = "".join(f"sku{n},{n}\n" for n in range(count))
    (project.folder / "in.csv").write_text("sku,stock\n" + rows + but)


def parts(project: Project) -> int:
    found = project.rows(f"SELECT count(*) FROM {project.ledger('steps')} WHERE step_id = 'load' AND part <> ''")
    return int(found[0][0])


def test_a_load_goes_on_behind_its_last_part(project: Project) -> None:
    write_rows(project, 10)
    project.write(LOAD % "return_ids: true", tail="outputs: {created: load.created, ids: load.ids}")
    project.write("taken: {node: Item.create, with: {sku: sku7}}")
    assert project.dfrun("p.yaml")[0] == 0
    project.write(LOAD % "return_ids: true", tail="outputs: {created: load.created, ids: load.ids}")
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == 1  # the third part meets sku7
    assert project.rows("SELECT count(*) FROM item WHERE sku <> 'sku7'") == [(6,)] and parts(project) == 2
    project.rows("DELETE FROM item WHERE sku = 'sku7'")
    code, out, err = project.dfrun("resume", "r1", "-o", "json")
    told = json.loads(out)
    assert code == 0, out + err
    assert (told["outputs"]["created"], told["steps"]["load"]["rows"]) == (10, 10)
    ids = [id_ for (id_,) in project.rows("SELECT id FROM item ORDER BY stock")]
    assert told["outputs"]["ids"] == ids and len(set(ids)) == 10
    assert project.rows("SELECT count(*), count(DISTINCT sku), sum(stock) FROM item") == [(10, 10, 45)]
    assert parts(project) == 4
    assert "load" in project.dfrun("runs", "show", "r1")[1]


def test_rejects_are_those_of_all_parts(project: Project) -> None:
    write_rows(project, 5, ",5\nsku6,6\nsku7,7\n,8\n")
    tail = "outputs: {rejects: load.rejects, count: load.reject_count, created: load.created}"
    project.write(LOAD.replace("sku: string", "sku: string?") % "rejects: collect, max_rejects: 2", tail=tail)
    code, out, err = project.dfrun("p.yaml", "-o", "json")
    told = json.loads(out)["outputs"]
    assert code == 0, out + err
    assert (told["created"], told["count"], [row["line"] for row in told["rejects"]]) == (7, 2, [7, 10])
    project.rows("DELETE FROM item")
    project.write(LOAD.replace("sku: string", "sku: string?") % "rejects: collect, max_rejects: 1", tail=tail)
    code, out, _ = project.dfrun("p.yaml", "-o", "json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "DF514")


def test_an_upsert_in_parts_counts_what_it_did(project: Project) -> None:
    write_rows(project, 7)
    steps = LOAD.replace("bulk_create", "bulk_upsert") % "key: [sku]"
    project.write(steps, tail="outputs: {created: load.created, updated: load.updated}")
    for wanted in ({"created": 7, "updated": 0}, {"created": 0, "updated": 7}):
        code, out, err = project.dfrun("p.yaml", "-o", "json")
        assert (code, json.loads(out)["outputs"]) == (0, wanted), out + err


def test_other_rows_behind_a_committed_part_are_refused(project: Project) -> None:
    write_rows(project, 7)
    project.write("taken: {node: Item.create, with: {sku: sku4}}")
    assert project.dfrun("p.yaml")[0] == 0
    project.write(LOAD % "fields: [sku, stock]")
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == 1
    steps = project.ledger("steps")
    project.rows(f"UPDATE {steps} SET output = replace(output, '$rows', '$was') WHERE part = '0'")
    code, _, err = project.dfrun("resume", "r1")
    assert code == 1 and "DF565" in err


def test_parts_that_are_committed_stay_when_a_run_is_taken_back(project: Project) -> None:
    write_rows(project, 7, "sku0,9\n")
    project.write(
        "first: {node: Item.create, with: {sku: x}, undo: auto}" + LOAD % "fields: [sku, stock]",
        tail="on_failure: {undo: all}",
    )
    code, out, _ = project.dfrun("p.yaml", "-o", "json")
    told = json.loads(out)
    assert code != 4 and told["undo"]["load"]["state"] == "stays" and told["undo"]["first"]["state"] == "undone"
    assert project.rows("SELECT count(*) FROM item") == [(6,)]


@pytest.mark.parametrize(
    ("steps", "head", "code"),
    [
        ("both: {transaction: true, steps: {load: LOAD}}", "", "DF319"),
        ("list: {node: Item.list}\nload: {foreach: list.rows, REST}", "", "DF319"),
        ("load: LOAD", 'ledger: "off"', "DF319"),
        ("load: {undo: auto, REST}", "", "DF318"),
    ],
)
def test_parts_have_no_place_everywhere(steps: str, head: str, code: str, tmp_path: Path, warm: Warm) -> None:
    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    rest = "node: Item.bulk_create, with: {commit: batch, data: [{sku: a}]}"
    project.write(steps.replace("LOAD", f"{{{rest}}}").replace("REST", rest), head)
    got, _, err = project.dfrun("validate", "p.yaml")
    assert got == 2 and code in err
