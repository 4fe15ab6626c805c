"""The verbs that show things: explain, nodes, graph, schema, init, doctor, completion."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli import main
from runner.codes import codes
from runner.nodes import BUILT_IN_KINDS, MODEL_KINDS

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(PROJECT)
    for name in ("DFRUN_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as left:
            main(list(words))
        out = capsys.readouterr()
        assert (left.value.code or 0) == code, out.err
        return out.out + out.err

    return call


def test_every_code_is_explained(told: Any) -> None:
    for code in codes():
        assert told("explain", code).startswith(f"{code}: ")
    assert "did you mean DF302?" in told("explain", "DF302X", code=2)


@pytest.mark.parametrize(
    "node", [*(f"Customer.{kind}" for kind in MODEL_KINDS), *BUILT_IN_KINDS, "CustomerBulkUpsertNode"]
)
def test_every_node_is_shown_with_its_ports(told: Any, node: str) -> None:
    text = told("nodes", node)
    assert all(f"\n{word}\n" in text for word in ("ports", "gives", "example"))
    document = json.loads(told("nodes", node, "-o", "json"))
    assert document["ports"]
    if node != "python.call":
        assert document["gives"] is not None


@pytest.mark.parametrize("shelf", [MODEL_KINDS, BUILT_IN_KINDS])
def test_a_kind_has_the_name_it_is_found_by(shelf: Any) -> None:
    assert {name: kind.name for name, kind in shelf.items()} == {name: name for name in shelf}


EVERY_NODE = [*(f"{model}.{kind}" for model in ("Customer", "Order") for kind in MODEL_KINDS), *BUILT_IN_KINDS]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The function that an example calls; forgotten afterwards, or the reference of nodes would know its type."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "prices.py").write_text("def price_of(sku: str) -> int:\n    return 1\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("shop.prices", "shop"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("node", EVERY_NODE)
@pytest.mark.usefixtures("shop")
def test_the_example_of_a_node_is_valid(told: Any, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.yaml").write_text((PROJECT / "models.yaml").read_text())
    (tmp_path / "dfrun.yaml").write_text("http: {hosts: [api.example.org]}\n")
    example = told("nodes", node).partition("\nexample\n")[2]
    if node in ("Order.upsert", "Order.bulk_upsert"):
        assert "mark one `unique: true`" in example
        return
    (tmp_path / "example.yaml").write_text(f"name: example\nsteps:\n{example}")
    monkeypatch.chdir(tmp_path)
    assert "no problems" in told("validate", "example.yaml")


def test_the_catalogue_lists_every_node_of_every_model(told: Any) -> None:
    listed = told("nodes")
    for model in ("Customer", "Order"):
        for kind in MODEL_KINDS:
            assert f"  {model}.{kind} " in listed
    assert "OrderBulkUpsertNode" in listed
    assert "did you mean Order.create?" in told("nodes", "Order.crate", code=2)


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("text", "    customer_id ← customer.id  (integer)"),
        ("mermaid", '  customer -->|"id → customer_id"| order'),
        ("dot", '  "customer" -> "order" [label="id \\u2192 customer_id"];'),
        ("json", '      "from": "customer.id",'),
    ],
)
def test_a_graph_is_drawn(told: Any, form: str, line: str) -> None:
    assert line in told("graph", "pipelines/orders.yaml", "-o", form).splitlines()


def test_the_schemas_accept_what_the_program_accepts(told: Any) -> None:
    import jsonschema

    pairs = [("models", ["models.yaml", "runner/starter/models.yaml"]), ("pipeline", ["pipelines/orders.yaml"])]
    for what, files in pairs:
        schema = json.loads(told("schema", what))
        jsonschema.Draft202012Validator.check_schema(schema)
        for file in files:
            jsonschema.validate(yaml.safe_load(Path(file).read_text()), schema)
    wrong = yaml.safe_load("name: p\nsteps: {c: {node: Customer.create, with: {emial: x}}}")
    with pytest.raises(jsonschema.ValidationError, match="emial"):
        jsonschema.validate(wrong, schema)


def test_a_starter_project_runs_and_is_not_overwritten(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "now run: dfrun pipelines/orders.yaml" in told("init")
    assert "orders succeeded" in told("pipelines/orders.yaml")
    assert "✓ tables" in told("doctor")
    assert "DF410 models.yaml is there already" in told("init", code=2)


def test_doctor_tells_what_is_wrong(told: Any, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models: {A: {fields: {x: integr}}}")
    assert "✗ project" in told("doctor", str(tmp_path), code=1)
    (tmp_path / "models.yaml").write_text("models: {A: {fields: {x: integer}}}")
    assert "not there yet" in told("doctor", str(tmp_path))
    assert "nothing answers there" in told(
        "doctor", str(tmp_path), "--database", "postgresql://h:hush@127.0.0.1:1/x", code=1
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_completes(told: Any, shell: str) -> None:
    assert "_DFRUN_COMPLETE" in told("completion", shell)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("dfrun val", "plain,validate"),
        ("dfrun nodes Order.bulk_up", "plain,Order.bulk_update\nplain,Order.bulk_upsert"),
        ("dfrun explain DF30", "plain,DF301"),
        ("dfrun pipelines/or", "file,pipelines/or"),
        ("dfrun run --data", "plain,--database"),
    ],
)
def test_words_are_completed(line: str, found: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "_DFRUN_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    code = "from runner.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert found in done.stdout, done


def test_an_unknown_verb_says_so(told: Any) -> None:
    assert "No such command 'valdate'" in told("valdate", code=2)
