"""Who may import whom: a room imports only from lines above its own. The table is ARCHITECTURE for machines."""

import ast
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[1]
LINES = [
    ["schemas", "runner.errors", "runner"],
    ["runner.events", "runner.run.recorded", "runner.source", "runner.cli.options", "runner.arguments", "runner.ports", "runner.data.rows", "runner.sql.patterns", "runner.sql.decimals",
     "runner.codes", "runner.run.identity", "runner.examples", "runner.cli.paint", "runner.data.files", "runner.dialects.types", "runner.dialects.bound",
     "runner.sql.jsonsql",
     "runner.sql", "runner.data", "runner.run", "runner.encryption"],
    ["runner.run.choices", "runner.run.results", "runner.run.context", "runner.data.fingerprint"],
    ["runner.evaluate", "runner.data.cells", "runner.reach", "runner.declarations", "runner.sql.filters", "runner.sql.fulltext", "runner.query"],
    ["runner.sql.jsonwalk", "runner.sql.orders", "runner.sql.jsonedit", "runner.sql.jsonchange"],
    ["runner.conditions", "runner.data.intake", "runner.sql.updates", "runner.sql.aggregates", "runner.parameters", "runner.dialects", "runner.features"],
    ["runner.encryption.vault"],
    ["runner.catalog", "runner.sql.tables", "runner.data.writing", "runner.sql.statements", "runner.sql.scoping", "runner.tenants", "runner.tenancy",
     "runner.ledger", "runner.encryption.datakeys"],
    ["runner.audit", "runner.migrate", "runner.schedule"],
    ["runner.access", "runner.database", "runner.data.parts"],
    ["runner.encryption.sealing", "runner.encryption.kept"],
    ["runner.encryption.keys"],
    ["runner.data.bulk", "runner.subjects", "runner.run.recording"],
    ["runner.nodes"],
    ["runner.graph", "runner.plugin"],
    ["runner.plan", "runner.describe", "runner.drawing", "runner.run.failures", "runner.loading", "runner.run.effects", "runner.run.items"],
    ["runner.run.attempts"],
    ["runner.run.streams", "runner.jsonschema", "runner.run.standins"],
    ["runner.rehearsal", "runner.run.board"],
    ["runner.run.saga", "runner.run.reading"],
    ["runner.run.executor", "runner.run.decisions"],
    ["runner.run.dry", "runner.history"],
    ["runner.run.launch"],
    ["runner.preview", "runner.run.firing"],
    ["runner.api", "runner.report", "runner.cli.progress", "runner.cli.signals"],
    ["runner.doctor", "runner.audits", "runner.schedules", "runner.encryption.keyring"],
    ["runner.cli.audit", "runner.cli.keys", "runner.cli.migrate", "runner.cli.plan", "runner.cli.runs", "runner.cli.schedule"],
    ["runner.cli.verbs"],
    ["runner.cli"],
]  # fmt: skip
DOORS = {
    "yaml": {"runner.source", "runner.codes"},
    "pydantic": {"schemas", "runner.declarations", "runner.nodes.python_call", "runner.nodes.textfile"},
    "networkx": {"runner.graph", "runner.plan"},
    "click": {
        "runner.cli.verbs",
        "runner.cli.audit",
        "runner.cli.keys",
        "runner.cli.migrate",
        "runner.cli.plan",
        "runner.cli.runs",
        "runner.cli.schedule",
        "runner.cli.options",
    },
    "rich": {"runner.cli.progress"},
    "regex": {"runner.sql.patterns"},
    "cryptography": {"runner.encryption.vault"},
    "asyncpg": set(),
    "aiosqlite": set(),
}
"""One outside library, few doors."""


def rooms() -> Iterator[tuple[str, ast.Module]]:
    for package in ("runner", "schemas"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            name = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def line_of(module: str) -> int:
    """The line of the longest listed name that the module lies in."""
    found = [
        (len(room), number) for number, line in enumerate(LINES) for room in line if f"{module}.".startswith(f"{room}.")
    ]
    assert found, f"{module} stands on no line"
    return max(found)[1]


def typing_only(tree: ast.Module) -> set[str]:
    """What is imported under `if TYPE_CHECKING:`; types may point anywhere."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found |= set(imports(ast.Module(node.body, [])))
    return found


def test_a_room_imports_only_from_rooms_above_it() -> None:
    wrong = []
    for room, tree in rooms():
        for name in set(imports(tree)) - typing_only(tree):
            if name.partition(".")[0] not in ("runner", "schemas") or room == "runner":
                continue
            same_shelf = room.rpartition(".")[0] in (
                "runner.nodes",
                "runner.features",
                "runner.audit",
                "runner.dialects",
                "runner.graph",
                "runner.migrate",
                "runner.ledger",
                "runner.schedule",
                "schemas",
            ) or room in ("runner.nodes", "runner.features", "runner.audit", "runner.graph")
            own, other = line_of(room), line_of(name)
            if other > own or (other == own and not same_shelf and room.partition(".")[0] != "schemas"):
                wrong.append(f"{room} imports {name}")
    assert not wrong


def test_schemas_know_only_themselves() -> None:
    for room, tree in rooms():
        if room.startswith("schemas"):
            assert not [name for name in imports(tree) if name.startswith("runner")], room


def test_each_library_has_its_doors() -> None:
    for room, tree in rooms():
        for name in set(imports(tree)) - typing_only(tree):
            doors = DOORS.get(name.partition(".")[0])
            assert doors is None or any(f"{room}.".startswith(f"{door}.") for door in doors), f"{room} imports {name}"


def test_files_stay_small() -> None:
    for path in [*(PROJECT / "runner").rglob("*.py"), *(PROJECT / "schemas").rglob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 520, path
