"""The command line as a user meets it, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def dfrun(*words: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from runner.cli import main; main()", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(PROJECT)}
    )


def test_the_example_is_valid() -> None:
    done = dfrun("validate", "models.yaml", "pipelines")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "models.yaml: 4 models, no problems",
        "pipelines/load_sales.yaml: 6 steps, no problems",
        "pipelines/month_end.yaml: 5 steps, no problems",
        "pipelines/orders.yaml: 3 steps, no problems",
        "pipelines/shop/models.yaml: 6 models, no problems",
        "pipelines/shop/nightly_prices.yaml: 6 steps, no problems",
        "pipelines/shop/place_order.yaml: 9 steps, no problems",
    ]


def test_a_problem_shows_its_line_and_its_fix(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text((PROJECT / "models.yaml").read_text())
    wrong = (
        (PROJECT / "pipelines/orders.yaml")
        .read_text()
        .replace("customer_id: customer.id", "customer_id: customer.email", 1)
    )
    (tmp_path / "orders.yaml").write_text(wrong)
    done = dfrun("validate", "orders.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "orders.yaml:15:27: DF302 'customer.email' is string, port 'customer_id' of Order.create wants integer",
        "  15 |     inputs: {customer_id: customer.email, total: params.total}",
        "     |                           ^^^^^^^^^^^^^^",
        "  why: Order.customer_id references Customer.id (models.yaml:10)",
        "  fix: did you mean customer.id?",
    ]
    told = json.loads(dfrun("validate", "orders.yaml", "-o", "json", folder=tmp_path).stdout)
    assert [(p["code"], p["line"]) for p in told["problems"]] == [("DF302", 15)]
    assert dfrun("validate", "orders.yaml", "-o", "github", folder=tmp_path).stdout.startswith(
        "::error file=orders.yaml,line=15,"
    )


def test_a_missing_file_is_a_problem() -> None:
    done = dfrun("validate", "nowhere.yaml")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "DF101 nowhere.yaml: there is no such file")


def test_neither_version_nor_validate_imports_a_database() -> None:
    code = (
        "import sys; sys.argv = ['dfrun', 'validate', 'pipelines']\n"
        "from runner.cli import main\n"
        "assert not {'pydantic', 'networkx', 'yaml'} & set(sys.modules)\n"
        "try: main()\n"
        "except SystemExit as done: assert done.code == 0\n"
        "print(sorted({'sqlalchemy', 'asyncpg', 'aiosqlite', 'asyncio', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")


def test_checking_a_file_loads_the_kinds_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models: {A: {fields: {x: integer}}}\n")
    (tmp_path / "one.yaml").write_text("name: one\nsteps: {a: {node: A.count}}\n")
    code = (
        "import sys; sys.argv = ['dfrun', 'validate', 'one.yaml']\n"
        "from runner.cli import main\n"
        "try: main()\n"
        "except SystemExit as done: assert done.code == 0\n"
        "print([m for m in sys.modules if hasattr(sys.modules[m], 'KIND')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("['runner.nodes.count']", "")


def test_a_folder_means_what_is_ours_in_it(tmp_path: Path) -> None:
    for name, text in (
        ("models.yaml", "models: {A: {fields: {x: integer}}}\n"),
        (".github/ci.yml", "on: push\njobs: [1]\n"),
        ("compose.yml", "services: {db: {image: postgres}}\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = dfrun("validate", ".", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "compose.yml: passed over, it is neither models nor a pipeline",
        "models.yaml: 1 model, no problems",
    ]
    (tmp_path / "typo.yaml").write_text("name: p\nstpes: {n: {node: A.count}}\n")
    done = dfrun("validate", ".", folder=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0].split()[1]) == (2, "DF110")
    assert dfrun("validate", "compose.yml", folder=tmp_path).returncode == 2


def test_packages_of_the_user_do_not_stand_in_for_ours(tmp_path: Path) -> None:
    for name in ("schemas", "runner", "yaml"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('raise ImportError("a package of the user")\n')
    (tmp_path / "shop.py").write_text("def price_of(sku: str) -> int:\n    return 7\n")
    (tmp_path / "p.yaml").write_text(
        'name: p\nsteps:\n  a: {node: python.call, with: {function: "shop:price_of", sku: a}}\n'
        "outputs: {price: a.result}\n"
    )
    program = Path(sys.executable).parent / "dfrun"
    done = subprocess.run([program, "p.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "  price: 7"


def test_twenty_problems_are_enough_to_begin_with(tmp_path: Path) -> None:
    steps = "".join(f"  s{n}: {{node: A.cuont}}\n" for n in range(30))
    (tmp_path / "models.yaml").write_text("models: {A: {fields: {x: integer}}}\n")
    (tmp_path / "p.yaml").write_text(f"name: p\nsteps:\n{steps}")
    done = dfrun("validate", "p.yaml", folder=tmp_path)
    assert (done.returncode, done.stderr.count(" DF308 ")) == (2, 20)
    assert done.stderr.splitlines()[-1] == "… and 10 more; -o json of validate tells all of them"
    told = json.loads(dfrun("validate", "p.yaml", "-o", "json", folder=tmp_path).stdout)
    assert len(told["problems"]) == 30
