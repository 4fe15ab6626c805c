"""Files become rows and rows become files, whole or not at all; what does not fit is told with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli import main

MODELS = """\
models:
  Product:
    fields:
      sku: {type: string, max_length: 8, primary_key: true}
      price: {type: decimal, precision: 8, scale: 2}
      stock: {type: integer, default: 5}
      seen: date?
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.yaml").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], steps: str, outputs: str = "") -> tuple[int, dict[str, Any]]:
    Path("p.yaml").write_text(f"name: p\nsteps:\n{steps}\n{'outputs: ' + outputs if outputs else ''}\n")
    with pytest.raises(SystemExit) as left:
        main(["p.yaml", "-o", "json"])
    return int(str(left.value.code)), json.loads(capsys.readouterr().out)


READ = "  it: {{node: csv.read, with: {{path: in.csv, model: Product{more}}}}}\n"
OUT = "{rows: it.rows, count: it.count, skipped: it.skipped, rejected: it.reject_count}"


@pytest.mark.parametrize(
    ("content", "more", "rows"),
    [
        (b"sku,price,stock,seen\na,1.5,2,2026-01-31\n", "", [["a", "1.5", 2, "2026-01-31"]]),
        (b"\xef\xbb\xbfsku,price,stock,seen\r\na,1,,\r\n", "", [["a", "1", 5, None]]),
        (b"seen;Preis;sku;stock;extra\n;1,25;\"a;b\";3;x\n", ", delimiter: ';', decimal: ',', rename: {Preis: price}",
         [["a;b", "1.25", 3, None]]),
        ("sku,price\nä,1\n".encode("latin-1"), ", encoding: latin-1, fields: [sku, price]", [["ä", "1"]]),
        (b"sku,price\na,1\n", ", missing_columns: 'null'", [["a", "1", 5, None]]),
        (b"sku,price,stock,seen\n\"two\nlines\",1,1,\n", ", fields: [sku]", []),
        (b"sku,price,stock,seen\na,1,1,1/31/2026\n", ", date_format: '%m/%d/%Y'", [["a", "1", 1, "2026-01-31"]]),
    ],
    ids=["plain", "bom-crlf-default", "german", "latin", "missing", "two-line-cell", "us-date"],
)  # fmt: skip
def test_a_file_is_read_as_its_layout_says(
    folder: Path, content: bytes, more: str, rows: list[list[object]], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "in.csv").write_bytes(content)
    if not rows:
        rows = [["two\nlines"]]
        (folder / "models.yaml").write_text(MODELS.replace("max_length: 8", "max_length: 20"))
    code, told = run(capsys, READ.format(more=more), OUT)
    assert code == 0, told
    assert [list(row.values()) for row in told["outputs"]["rows"]] == rows


def test_misfits_are_set_aside_with_line_and_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in.csv").write_text(
        'sku,price,stock,seen\na,1,1,\n,,,\n\nb,many,1,\nlonger than eight,1,1,\nc,1\n"d\nd",1,x,\ne,2,2,\n'
    )
    code, told = run(
        capsys,
        READ.format(more=", rejects: collect")
        + "  save: {node: csv.write, with: {path: out/no.csv}, inputs: {rows: it.rejects}}\n"
        "  load: {node: Product.bulk_create, inputs: {data: it.rows}}\n",
        "{rejects: it.rejects, count: it.count, skipped: it.skipped, created: load.created}",
    )
    assert code == 0, told
    assert [(r["line"], r["reason"]) for r in told["outputs"]["rejects"]] == [
        (5, "price: wants a decimal number"),
        (6, "sku: text of 17 characters, at most 8 are allowed"),
        (7, "2 cells, the header has 4"),
        (8, "stock: wants a whole number"),
    ]
    assert {k: told["outputs"][k] for k in ("count", "skipped", "created")} == {"count": 2, "skipped": 2, "created": 2}
    assert (folder / "out/no.csv").read_text().splitlines()[0] == "line,reason,text"


@pytest.mark.parametrize(
    ("content", "more", "code", "what"),
    [
        (None, "", "DF530", "there is no file"),
        (b"", "", "DF532", "is empty"),
        (b"sku,prize,stock,seen\n", "", "DF532", "the file has no column 'price'"),
        (b"sku,price,stock,seen\na,1,1,\nb,x,1,\n", "", "DF531", "line 3: price: wants a decimal number"),
        (b"sku,price,stock,seen\na,1,1\n", "", "DF531", "line 2: 3 cells, the header has 4"),
        (b'sku,price,stock,seen\na,1,1,\n"b,1,1,\n', "", "DF531", "line 3: a quote is not closed"),
        (b"sku,price,stock,seen\n\xff,1,1,\n", "", "DF533", "a byte that is not utf-8"),
        (b"sku,sku,price,stock,seen\n", "", "DF532", "the header names the column 'sku' twice"),
        (b"sku,price,stock,seen\na,x,1,\nb,x,1,\n", ", rejects: collect, max_rejects: 1", "DF514", "line 3: price"),
    ],
)
def test_a_bad_file_is_one_clear_problem_and_loads_nothing(
    folder: Path, content: bytes | None, more: str, code: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (folder / "in.csv").write_bytes(content)
    steps = (
        READ.format(more=more)
        + "  load: {node: Product.bulk_create, inputs: {data: it.rows}}\n  n: {node: Product.count, after: {load: finished}}\n"
    )
    status, told = run(capsys, steps)
    assert (status, told["error"]["code"]) == (1, code)
    assert what in told["error"]["what"]
    assert told["steps"]["load"]["state"] == "blocked"
    status, told = run(capsys, "  n: {node: Product.count}\n", "{n: n.count}")
    assert told["outputs"] == {"n": 0}


def test_what_is_written_is_read_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "models.yaml").write_text(MODELS.replace("max_length: 8", "max_length: 20"))
    data = '[{sku: "=1+1", price: 1.50}, {sku: "\'-x", price: 2, stock: 1}, {sku: "a,\\"b", price: 3}]'
    code, told = run(
        capsys,
        f"  make: {{node: Product.bulk_create, with: {{data: {data}}}}}\n"
        "  all: {node: Product.list, with: {fields: [sku, price, stock, seen]}, after: make}\n"
        "  csv: {node: csv.write, with: {path: out.csv, delimiter: ;}, inputs: {rows: all.rows}}\n"
        "  jsonl: {node: jsonl.write, with: {path: out.jsonl}, inputs: {rows: all.rows}}\n"
        "  csv_back: {node: csv.read, with: {model: Product, delimiter: ;}, inputs: {path: csv.path}}\n"
        "  jsonl_back: {node: jsonl.read, with: {model: Product}, inputs: {path: jsonl.path}}\n",
        "{all: all.rows, csv: csv_back.rows, jsonl: jsonl_back.rows}",
    )
    assert code == 0, told
    assert told["outputs"]["all"] == told["outputs"]["csv"] == told["outputs"]["jsonl"]
    assert "'=1+1" in (folder / "out.csv").read_text()
    assert sorted(path.name for path in folder.glob("*out*")) == ["out.csv", "out.jsonl"]


def test_json_lines_are_judged_one_by_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in.jsonl").write_text(
        '{"sku": "a", "price": 19.99}\n\n[1]\n{"sku": "b"}\n{"sku": 7, "price": 1}\n{broken\n{"sku": "c", "price": "2.50", "seen": "2026-01-31"}\n'
    )
    code, told = run(
        capsys, "  it: {node: jsonl.read, with: {path: in.jsonl, model: Product, rejects: collect}}\n",
        "{rows: it.rows, rejects: it.rejects, skipped: it.skipped}",
    )  # fmt: skip
    assert code == 0, told
    assert [tuple(row.values()) for row in told["outputs"]["rows"]] == [
        ("a", "19.99", 5, None),
        ("c", "2.50", 5, "2026-01-31"),
    ]
    assert [(r["line"], r["reason"]) for r in told["outputs"]["rejects"]] == [
        (3, "this is not a JSON object"), (4, "price: is missing"), (5, "sku: wants string, got a whole number"),
        (6, "this is not JSON"),
    ]  # fmt: skip


def test_rejects_that_go_nowhere_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, READ.format(more=", rejects: collect"))
    assert (code, told["error"]["code"], told["error"]["what"]) == (2, "DF314", "the rejects of 'it' go nowhere")


def test_declared_columns_type_the_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in.csv").write_text("a,b\n007,007\n")
    code, told = run(
        capsys, "  it: {node: csv.read, with: {path: in.csv, columns: {a: string, b: integer?}}}\n", "{rows: it.rows}"
    )
    assert (code, told["outputs"]) == (0, {"rows": [{"a": "007", "b": 7}]})


def test_a_parquet_file_keeps_every_type(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "models.yaml").write_text(
        MODELS + "      at: datetime?\n      ok: boolean?\n      u: uuid?\n      j: json?\n      f: float?\n"
    )
    data = (
        "[{sku: a, price: 1.50, seen: 2026-01-31, at: 2026-01-31T10:00:00Z, ok: true, j: {x: [1]}, f: 1.5,"
        " u: 01a20f9f-1913-700d-8f09-a5683280ff78}, {sku: b, price: 2}]"
    )
    fields = "[sku, price, stock, seen, at, ok, u, j, f]"
    code, told = run(
        capsys,
        f"  make: {{node: Product.bulk_create, with: {{data: {data}}}}}\n"
        f"  all: {{node: Product.list, with: {{fields: {fields}}}, after: make}}\n"
        "  out: {node: parquet.write, with: {path: out/p.parquet}, inputs: {rows: all.rows}}\n"
        f"  back: {{node: parquet.read, with: {{model: Product, fields: {fields}}}, inputs: {{path: out.path}}}}\n",
        "{all: all.rows, back: back.rows, count: back.count}",
    )
    assert code == 0, told
    rows = told["outputs"]["back"]
    for row in rows:
        row["j"] = json.loads(row["j"]) if isinstance(row["j"], str) else row["j"]
    assert (rows, told["outputs"]["count"]) == (told["outputs"]["all"], 2)
    assert [path.name for path in (folder / "out").iterdir()] == ["p.parquet"]


def test_misfits_of_a_parquet_file_are_set_aside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"Artikel": ["a", "much too long", None], "price": [1, 2, 3]}), "in.parquet")
    code, told = run(
        capsys,
        "  it: {node: parquet.read, with: {path: in.parquet, model: Product, fields: [sku, price, stock],"
        " rename: {Artikel: sku}, rejects: collect, missing_columns: 'null'}}\n",
        "{rows: it.rows, rejects: it.rejects}",
    )
    assert code == 0, told
    assert told["outputs"]["rows"] == [{"sku": "a", "price": "1", "stock": 5}]
    assert [(r["line"], r["reason"]) for r in told["outputs"]["rejects"]] == [
        (2, "sku: text of 13 characters, at most 8 are allowed"), (3, "sku: wants string, got null"),
    ]  # fmt: skip
    Path("in.parquet").write_text("no")
    code, told = run(capsys, "  it: {node: parquet.read, with: {path: in.parquet, model: Product}}\n")
    assert (code, told["error"]["code"]) == (1, "DF532")


FIND = "  it: {{node: file.find, with: {{pattern: {pattern}, folder: inbox{more}}}{inputs}}}\n"


@pytest.mark.parametrize(
    ("pattern", "more", "code", "found"),
    [
        ("prices-%Y-%m-%d.csv", ", at: 2026-01-31", 0, "inbox/prices-2026-01-31.csv"),
        ("prices-%Y%%.csv", ", at: 2026-01-31", 1, "there is no file 'prices-2026%.csv' in the folder 'inbox'"),
        ("prices-*.csv", "", 1, "2 files fit 'prices-*.csv'"),
        ("prices-*.csv", ", pick: last", 0, "inbox/prices-2026-02-01.csv"),
        ("prices-%Y.csv", "", 2, "the pattern has a day and nothing says which"),
        ("../x", "", 2, "pattern: a pattern is a name in the folder"),
        ("x-%q", ", at: 2026-01-31", 2, "pattern: '%q' is no part of a date"),
    ],
)
def test_a_file_is_found_by_its_day(
    folder: Path, pattern: str, more: str, code: int, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inbox").mkdir()
    for day in ("2026-01-31", "2026-02-01"):
        (folder / f"inbox/prices-{day}.csv").write_text("x")
    status, told = run(capsys, FIND.format(pattern=pattern, more=more, inputs=""), "{path: it.path, size: it.size}")
    assert status == code, told
    if code == 0:
        assert told["outputs"] == {"path": found, "size": 1}
    else:
        assert told["error"]["what"].removeprefix("it: ") == found
        assert code == 2 or told["steps"]["it"]["error"]["class"] == ("error" if "files fit" in found else "not_found")


def test_a_late_file_is_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    (folder / "inbox").mkdir()
    late = threading.Timer(0.3, lambda: (folder / "inbox/a.csv").write_text("x"))
    late.start()
    step = FIND.format(pattern="a.csv", more="", inputs=", retry: {max: 50, delay: 50ms, backoff: 1, on: [not_found]}")
    code, told = run(capsys, step, "{name: it.name}")
    late.join()
    assert (code, told["outputs"]) == (0, {"name": "a.csv"})


def test_a_file_is_moved_once_however_often(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    move = "  it: {node: file.move, with: {path: in.csv, to: done/old%s}}\n"
    (folder / "in.csv").write_text("1")
    for _ in range(2):  # the second time it is there already, as after a run that died in between
        code, told = run(capsys, move % "", "{path: it.path}")
        assert (code, told["outputs"]) == (0, {"path": "done/old/in.csv"})
    (folder / "in.csv").write_text("2")
    code, told = run(capsys, move % "")
    assert (code, told["error"]["code"], (folder / "in.csv").read_text()) == (1, "DF561", "2")
    code, told = run(capsys, move % ", overwrite: true")
    assert (code, (folder / "done/old/in.csv").read_text(), (folder / "in.csv").exists()) == (0, "2", False)
    code, told = run(capsys, "  it: {node: file.move, with: {path: none.csv, to: done}}\n")
    assert (code, told["steps"]["it"]["error"]["class"]) == (1, "not_found")


def test_a_file_is_written_under_its_day(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        "  n: {node: Product.list}\n"
        "  a: {node: csv.write, with: {pattern: out-%Y-%m.csv, folder: day, at: 2026-01-31}, inputs: {rows: n.rows}}\n"
        "  b: {node: jsonl.write, with: {pattern: out-%j.jsonl}, inputs: {rows: n.rows, at: run.scheduled_at}}\n",
        "{a: a.path, b: b.path}",
    )
    assert code == 0, told
    assert told["outputs"]["a"] == "day/out-2026-01.csv"
    assert (folder / told["outputs"]["b"]).exists()
    for step, what in (
        ("{pattern: x}, inputs: {rows: n.rows, path: n.count}", "path and pattern are two ways to say where"),
        ("{folder: x}, inputs: {rows: n.rows}", "nothing says which file"),
        ("{path: x, folder: y}, inputs: {rows: n.rows}", "folder belongs to pattern"),
    ):
        code, told = run(capsys, f"  n: {{node: Product.list}}\n  a: {{node: csv.write, with: {step}}}\n")
        assert (code, told["problems"][0]["what"].partition(": ")[2] or told["problems"][0]["what"]) == (2, what), told


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_row_that_breaks_a_field_s_check_is_set_aside(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its line, whatever the format; a null breaks no check. Without `collect` it is left to who writes it."""
    checked = MODELS.replace("stock: {type: integer, default: 5}", "stock: {type: integer?, check: {$gte: 0}}")
    (folder / "models.yaml").write_text(checked.replace("scale: 2}", "scale: 2, check: {$between: [1, 9]}}"))
    (folder / "in.csv").write_text("sku,price,stock\na,1,0\nb,10,1\nc,2,\nd,3,-1\n")
    lines = [{"sku": "a", "price": 1, "stock": 0}, {"sku": "b", "price": 10, "stock": 1}, {"sku": "c", "price": 2},
             {"sku": "d", "price": 3, "stock": -1}]  # fmt: skip
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([{"stock": None, **line} for line in lines]), folder / "in.parquet")
    read = f"  it: {{node: {kind}.read, with: {{path: in.{kind}, model: Product, fields: [sku, price, stock]MORE}}}}\n"
    code, told = run(capsys, read.replace("MORE", ", rejects: collect"), "{rows: it.rows, rejects: it.rejects}")
    assert (code, [row["sku"] for row in told["outputs"]["rows"]]) == (0, ["a", "c"]), told
    first = 2 if kind == "csv" else 1
    assert [(r["line"], r["reason"]) for r in told["outputs"]["rejects"]] == [
        (first + 1, "price: breaks the field's check"), (first + 3, "stock: breaks the field's check"),
    ]  # fmt: skip
    code, told = run(capsys, read.replace("MORE", ""), "{count: it.count}")
    assert (code, told["outputs"]) == (0, {"count": 4})
