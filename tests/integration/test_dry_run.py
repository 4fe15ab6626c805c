"""A dry run does everything and leaves nothing, on both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from durable import Project
from warm import Warm

MODELS = """
models:
  Item:
    fields: {sku: {type: string, max_length: 40, unique: true}, stock: {type: integer, default: 0, check: {$gte: 0}}}
  Movement:
    fields: {item_id: {type: integer?, references: Item.id}, quantity: {type: integer, unique: true}}
    features: {audit_log: true, soft_delete: true}
"""


@pytest.fixture
def project(tmp_path: Path, url: str, warm: Warm) -> Project:
    project = Project(tmp_path, url, warm)
    (tmp_path / "models.yaml").write_text(MODELS)
    return project


def everything(project: Project) -> list[object]:
    """All tables with all rows, and all files of the project with their bytes."""
    if project.url.startswith("sqlite"):
        if not Path(project.url.removeprefix("sqlite:///")).exists():
            return sorted(path.name for path in project.folder.iterdir() if path.name != "__pycache__")
        tables = [name for (name,) in project.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
    else:
        listed = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
        where = "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        tables = [name for (name,) in project.rows(f"{listed} {where}")]
    rows = [(table, sorted(map(str, project.rows(f"SELECT * FROM {table}")))) for table in tables]
    ignored = ("test.db", "test.db-wal", "test.db-shm", "__pycache__")
    files = [
        (p.name, p.read_bytes()) for p in sorted(project.folder.iterdir()) if p.is_file() and p.name not in ignored
    ]
    return [*rows, *files]


def dry(project: Project, *words: str) -> tuple[int, dict[str, object]]:
    code, out, err = project.dfrun("run", "p.yaml", "--dry-run", "-o", "json", *words)
    assert not err
    told: dict[str, object] = json.loads(out)
    assert told["state"] == "refused" or told["dry_run"] is True
    return code, told


def states(told: dict[str, object]) -> dict[str, str]:
    steps = told["steps"]
    assert isinstance(steps, dict)
    return {name: step["state"] for name, step in steps.items()}


STEPS = """
first: {node: Item.create, with: {sku: a, stock: 5}}
move: {node: Movement.create, with: {quantity: 1}, inputs: {item_id: first.id}}
load:
  node: Item.bulk_create
  with: {data: [{sku: b, stock: 1}, {sku: a, stock: 9}], conflict_resolution: upsert, key: [sku]}
  after: first
book:
  transaction: {isolation: serializable}
  steps:
    more: {node: Item.update, with: {filter: {sku: b}, update: {stock: {$inc: 10}}}}
    moves: {node: Movement.bulk_upsert, with: {data: [{quantity: 2}], key: [quantity]}}
    items: {node: Item.bulk_upsert, with: {data: [{sku: c, stock: 3}], key: [sku]}, after: moves}
  outputs: {stock: more.stock}
  after: load
list: {node: Item.list, with: {order_by: [sku]}, after: book}
each: {node: Item.update, foreach: list.rows, with: {update: {stock: {$inc: 1}}}, inputs: {id: item.id}}
drop: {node: Movement.delete, inputs: {id: move.id}}
left: {node: Movement.count, after: [drop, book]}
part: {pipeline: part.yaml, with: {sku: z}, after: each}
sum: {node: Item.aggregate, with: {aggregate: {all: {$sum: stock}}}, after: part}
"""
PART = """
name: part
params: {sku: {type: string, required: true}}
steps:
  make: {node: Item.create, with: {stock: 100}, inputs: {sku: params.sku}}
outputs: {sku: make.sku}
"""
OUT = "outputs: {stock: book.stock, all: sum.all, part: part.sku, left: left.count, items: list.count}"


def test_everything_runs_and_nothing_stays(project: Project) -> None:
    project.write(STEPS, tail=OUT)
    (project.folder / "part.yaml").write_text(PART)
    before = everything(project)
    code, told = dry(project)
    assert code == 0, json.dumps(told, indent=1)
    assert everything(project) == before  # no table, no ledger, no file: not even an empty database
    wanted = {"stock": 11, "all": 9 + 11 + 3 + 3 + 100, "part": "z", "left": 1, "items": 3}
    assert told["outputs"] == wanted and set(states(told).values()) == {"succeeded"}
    assert project.dfrun("p.yaml", "--run-id", "r1")[0] == 0
    assert json.loads(project.dfrun("runs", "list", "-o", "json")[1])[0]["run_id"] == "r1"
    before = everything(project)
    code, told = dry(project)
    assert (code, states(told)["first"]) == (1, "failed")  # the rows of the real run are there
    assert everything(project) == before


def test_a_step_that_fails_is_told_and_the_others_go_on(project: Project) -> None:
    project.write(
        """
        first: {node: Item.create, with: {sku: a}}
        twice: {node: Item.create, with: {sku: a}, after: first}
        below: {node: Item.create, with: {sku: b, stock: 1}}
        check: {node: Item.update, with: {filter: {sku: b}, update: {stock: {$dec: 5}}}, after: below}
        lost: {node: Movement.create, with: {item_id: 77, quantity: 1}}
        reader: {node: Item.read, inputs: {id: twice.id}}
        count: {node: Item.count, after: {twice: finished, check: finished, lost: finished}}
        """,
        "fail_fast: false", "outputs: {count: count.count}",
    )  # fmt: skip
    code, told = dry(project)
    assert code == 1
    assert states(told) == {
        "first": "succeeded", "twice": "failed", "below": "succeeded", "check": "failed", "lost": "failed",
        "reader": "blocked", "count": "succeeded",
    }  # fmt: skip
    steps = told["steps"]
    assert isinstance(steps, dict)
    errors = {name: (step["error"]["code"], step["error"]["class"]) for name, step in steps.items() if step["error"]}
    assert errors == {"twice": ("DF580", "constraint"), "check": ("DF581", "constraint"),
                      "lost": ("DF581", "constraint")}  # fmt: skip
    assert told["outputs"] == {"count": 2}


def test_a_failure_is_taken_back_in_the_dry_run_too(project: Project) -> None:
    project.write(
        """
        first: {node: Item.create, with: {sku: a}, undo: auto}
        twice: {node: Item.create, with: {sku: a}, after: first}
        """,
        tail="""
        on_failure:
          undo: all
          steps: {count: {node: Item.count}}
        finally: {last: {node: Item.create, with: {sku: a}}}
        """,
    )
    code, told = dry(project)
    assert (code, told["state"]) == (4, "undone")
    assert states(told)["on_failure.count"] == states(told)["finally.last"] == "succeeded"  # the name was free again
    assert dry(project)[0] == 4


def test_changes_of_tables_are_part_of_the_dry_run(project: Project) -> None:
    project.write("first: {node: Item.create, with: {sku: a}}")
    assert project.dfrun("p.yaml")[0] == 0
    models = MODELS.replace("stock: {", "colour: {type: string?, max_length: 20}, stock: {")
    indexed = models.replace("  Movement:", "    indexes: [{name: by_stock, fields: [stock]}]\n  Movement:")
    (project.folder / "models.yaml").write_text(indexed + "  Extra:\n    fields: {label: string}\n")
    project.write("""
        blue: {node: Item.create, with: {sku: b, colour: blue}}
        extra: {node: Extra.create, with: {label: x}}
        """)
    before = everything(project)
    code, told = dry(project)
    assert code == 0, json.dumps(told, indent=1)
    assert everything(project) == before
    (project.folder / "dfrun.yaml").write_text(f"database: {json.dumps(project.url)}\n")
    code, told = dry(project)
    assert (code, told["state"]) == (3, "refused")
    assert everything(project)[:-1] == before[:-1] or len(everything(project)) == len(before)


def test_acts_outside_are_left_out_and_told(project: Project) -> None:
    project.write("""
        item: {node: Item.create, with: {sku: a, stock: 2}}
        pay: {node: python.call, with: {function: "work:pay", external: true, book: paid.txt}, after: item}
        reader: {node: text.format, with: {template: "{a}"}, inputs: {a: pay.result}}
        told: {node: python.call, with: {function: "work:pay", external: true, book: paid.txt, stand_in: {result: ok}}}
        given: {node: text.format, with: {template: "{a}!"}, inputs: {a: told.result}}
        list: {node: Item.list, after: item}
        each:
          foreach: list.rows
          steps:
            charge: {node: python.call, with: {function: "work:pay", external: true, book: paid.txt}}
            note: {node: Item.update, with: {update: {stock: 9}}, inputs: {id: item.id}}
          outputs: {stock: note.stock}
        plain: {node: python.call, with: {function: "work:plain", x: 3}}
        """, tail="outputs: {given: given.text, plain: plain.result, stocks: each.stock, reader: reader.text}")  # fmt: skip
    code, told = dry(project)
    assert code == 0, json.dumps(told, indent=1)
    assert not (project.folder / "paid.txt").exists()
    assert told["outputs"] == {"given": "ok!", "plain": 3, "stocks": [9], "reader": None}
    assert {n: s for n, s in states(told).items() if s != "succeeded"} == {"pay": "skipped", "reader": "skipped"}
    left_out = told["left_out"]
    assert isinstance(left_out, list) and sorted(left_out, key=lambda each: str(each["step"])) == [
        {"step": "each.charge", "what": "calls work:pay", "times": 1},
        {"step": "pay", "what": "calls work:pay", "times": 1},
        {"step": "told", "what": "calls work:pay", "times": 1},
    ]  # fmt: skip
    code, out, _ = project.dfrun("p.yaml", "--dry-run")
    assert code == 0 and "(dry run: all of it is rolled back)" in out and "  pay: calls work:pay\n" in out


def test_files_are_written_for_the_dry_run_alone(project: Project) -> None:
    (project.folder / "in.csv").write_text("sku,stock\na,1\nb,2\n")
    project.write("""
        read: {node: csv.read, with: {path: in.csv, model: Item}}
        load: {node: Item.bulk_create, inputs: {data: read.rows}}
        list: {node: Item.list, after: load}
        write: {node: jsonl.write, with: {path: out/today.jsonl}, inputs: {rows: list.rows}}
        find: {node: file.find, with: {pattern: "t*.jsonl", folder: out}, after: write}
        back: {node: jsonl.read, with: {model: Item}, inputs: {path: find.path}}
        count: {node: Item.bulk_upsert, with: {key: [sku]}, inputs: {data: back.rows}}
        away: {node: file.move, with: {path: in.csv, to: done}, after: count}
        gone: {node: csv.read, with: {path: in.csv, model: Item}, after: away}
        """, tail="outputs: {path: away.path, updated: count.updated, file: find.path}")  # fmt: skip
    before = everything(project)
    code, told = dry(project)
    assert (code, states(told)["gone"]) == (1, "failed")  # as it would be: the file has been moved
    assert told["outputs"] == {"path": "done/in.csv", "updated": 2, "file": "out/today.jsonl"}
    assert everything(project) == before and not (project.folder / "out").exists()


def test_a_transaction_that_is_gone_ends_the_dry_run(project: Project) -> None:
    # SQLite rolls the whole transaction back when a write is interrupted
    breaks = "UPDATE item SET stock = 1 WHERE pg_terminate_backend(pg_backend_pid())"
    if project.url.startswith("sqlite"):
        breaks = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) UPDATE item SET stock = (SELECT max(i) FROM n)"
    project.write(
        f"""
        first: {{node: Item.create, with: {{sku: a}}}}
        breaks:
          node: sql.execute
          with: {{sql: "{breaks}"}}
          retry: {{max: 0}}
          timeout: 500ms
          after: first
        after: {{node: Item.create, with: {{sku: b}}, retry: {{max: 0}}, after: {{breaks: finished}}}}
        """
    )
    code, told = dry(project)
    assert code in (1, 75)
    steps = told["steps"]
    assert isinstance(steps, dict)
    assert steps["after"]["error"]["code"] == "DF557"


def test_two_writes_by_key_share_a_transaction(project: Project) -> None:
    project.write("""
        both:
          transaction: true
          steps:
            items: {node: Item.bulk_upsert, with: {data: [{sku: c, stock: 3}], key: [sku]}}
            moves: {node: Movement.bulk_upsert, with: {data: [{quantity: 2}], key: [quantity]}}
        """)
    code, out, err = project.dfrun("p.yaml")
    assert code == 0, out + err


def test_a_failing_statement_is_over_at_its_limit(tmp_path: Path, warm: Warm) -> None:
    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS x FROM n"
    query = f'{{node: sql.query, with: {{sql: "{endless}", columns: {{x: integer}}}}, timeout: 300ms, after: first}}'
    last = "{node: Item.create, with: {sku: b}, after: {query: finished}}"
    project.write(f"first: {{node: Item.create, with: {{sku: a}}}}\nquery: {query}\nlast: {last}\n")
    for words in ((), ("--dry-run",)):
        code, out, _ = project.dfrun("p.yaml", "-o", "json", *words)
        told = json.loads(out)
        assert (code, told["error"]["class"], told["steps"]["last"]["state"]) == (1, "timeout", "succeeded")
        assert told["steps"]["query"]["duration_ms"] < 2_000
        project.rows("DELETE FROM item")
