"""A node of another package: really installed, found by its entry point, checked and run like any other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip put the example package into."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--target", str(target), str(PROJECT / "tests" / "plugins" / "payments")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


class Project:
    def __init__(self, folder: Path, installed: Path) -> None:
        self.folder, self.installed = folder, installed

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-c", "from runner.cli import main; main()", *words], cwd=self.folder,
            capture_output=True, text=True, timeout=60,
            env=os.environ | {"PYTHONPATH": f"{self.installed}{os.pathsep}{PROJECT}", "PAYMENT_KEY": "hush"},
        )  # fmt: skip

    def problems(self, step: str) -> list[str]:
        self.write(step)
        told = json.loads(self.call("validate", "p.yaml", "-o", "json").stdout)
        return [f"{p['line']}:{p['column']} {p['code']} {p['what']}" for p in told["problems"]]

    def write(self, step: str, tail: str = "") -> None:
        head = "params: {total: {type: decimal, default: 19.99}}\nsecrets: {key: {env: PAYMENT_KEY}}\n"
        (self.folder / "p.yaml").write_text(f"name: p\n{head}steps:\n  it: {step}\n{tail}")


@pytest.fixture
def project(tmp_path: Path, installed: Path) -> Project:
    return Project(tmp_path, installed)


CHARGE = "{node: payments.charge, with: {idempotency_key: k1}, inputs: {amount: params.total, api_key: secrets.key}}"


def test_a_node_of_another_package_runs_like_any_other(project: Project) -> None:
    project.write(CHARGE, "outputs: {id: it.charge_id}\n")
    done = project.call("p.yaml", "-o", "json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, told["outputs"]) == (0, {"id": "ch_k1"}), done.stderr
    assert json.loads((project.folder / "charges.json").read_text()) == {"k1": "19.99"}
    assert "hush" not in done.stdout + done.stderr
    assert "  payments.charge " in project.call("nodes").stdout
    assert "charge_id: string" in project.call("nodes", "payments.charge").stdout
    assert '"payments.charge"' in project.call("schema").stdout


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (CHARGE.replace("params.total", "run.id"), "5:77 DF302 'run.id' is string, port 'amount' of payments.charge wants decimal(12,2)"),
        (CHARGE.replace("with: {", "with: {currency: GBP, "), "5:48 DF309 currency: wants one of EUR, USD, got 'GBP'"),
        (CHARGE.replace("payments.charge", "payments.chrage"), "5:14 DF308 there is no node 'payments.chrage'"),
        (CHARGE.replace("payments.charge", "payments.missing"),
         "5:14 DF308 the node 'payments.missing' of the package 'shop-payments' cannot be loaded: there is no module 'shop_payments.nowhere'"),
        (CHARGE.replace("payments.charge", "payments.hollow"),
         "5:14 DF308 the node 'payments.hollow' of the package 'shop-payments' is no node: it lacks uses_database, writes, ports, check, run"),
        ("{node: payments.torn, with: {currency: EUR}}", "5:35 DF311 payments.torn of the package 'shop-payments' is broken: its ports raised KeyError at torn.py:11"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_problem(step: str, problem: str, project: Project) -> None:
    assert project.problems(step) == [problem]


def test_a_node_that_raises_is_its_packages_mistake(project: Project) -> None:
    project.write(CHARGE.replace("payments.charge", "payments.torn"))
    done = project.call("p.yaml", "-o", "json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["what"]) == (
        1, "DF525", "it: payments.torn of shop-payments raised KeyError at torn.py:15",
    )  # fmt: skip
    assert "a value" not in done.stdout + done.stderr


def test_no_plugin_is_imported_before_a_pipeline_names_it(project: Project) -> None:
    project.write("{node: log.info, with: {message: hi}}")
    code = (
        "import sys\nfrom runner.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('plugins', [m for m in sys.modules if m.startswith('shop_payments')], 'importlib.metadata' in sys.modules)"
    )
    for words in (["--version"], ["validate", "p.yaml"], ["p.yaml"]):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *words], cwd=project.folder, capture_output=True, text=True, timeout=60,
            env=os.environ | {"PYTHONPATH": f"{project.installed}{os.pathsep}{PROJECT}", "PAYMENT_KEY": "hush"},
        )  # fmt: skip
        assert done.stdout.splitlines()[-1].startswith("plugins []"), (words, done.stdout, done.stderr)
