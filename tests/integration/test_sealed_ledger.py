"""The ledger of a run over encrypted fields: nothing in clear, and everything there for a run that is resumed."""

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from durable import Project, empty_database
from warm import Warm

SECRETS = ("123-45-6789", "ann@example.org")
MODELS = """
  Person:
    fields:
      name: string
      email: {type: string, unique: true}
      ssn: string
    features: {encryption: {fields: [ssn], searchable: [email]}}
"""
STEPS = """
add: {node: Person.create, with: {name: Ann}, inputs: {email: params.email, ssn: params.ssn}}
found: {node: Person.list, with: {}, after: add}
said: {node: text.format, with: {template: "{x}"}, inputs: {x: add.ssn}}
seen: {node: python.call, with: {function: "work:same"}, inputs: {x: add.email}}
dies: {node: python.call, with: {function: "work:once", flag: died}, after: [said, seen, found]}
big: {node: python.call, with: {function: "work:long"}, inputs: {x: add.ssn}}
end: {node: python.call, with: {function: "work:both"}, inputs: {big: big.result, ssn: add.ssn}, after: dies}
"""
HEAD = "params: {ssn: {type: string, required: true}, email: {type: string, required: true}}"
OUT = "outputs: {ssn: end.result, mail: seen.result, said: said.text, rows: found.rows}"
GIVEN = ("-p", f"ssn={SECRETS[0]}", "-p", f"email={SECRETS[1]}")


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, warm: Warm) -> Iterator[Project]:
    """A project with one encrypted model and its key."""
    if request.param == "sqlite":
        yield prepared(Project(tmp_path, f"sqlite:///{tmp_path}/p.db", warm))
        return
    with empty_database(request.getfixturevalue("postgres_url")) as url:
        yield prepared(Project(tmp_path, url, warm))


def prepared(project: Project) -> Project:
    """The project with a person, a key and a function more."""
    for file, more in (
        ("models.yaml", MODELS),
        ("work.py", '\ndef same(x: str) -> str: return x\n'
                    'def refuse() -> int: raise ValueError\n'
                    'def long(x: str) -> str: return (x + " ") * 200_000\n'
                    'def both(big: str, ssn: str) -> str: return ssn if big.startswith(ssn) else ""\n'),
        ("dfrun.yaml", "encryption: {current: k1, keys: {k1: {env: DFRUN_KEY_1}}}\n"),
    ):  # fmt: skip
        with (project.folder / file).open("a") as text:
            text.write(more)
    project.write(STEPS, HEAD, OUT)
    return project


def key(start: int = 0) -> str:
    return base64.b64encode(bytes(range(start, start + 32))).decode()


def everything(project: Project) -> str:
    """Every cell of every table of every schema, unpacked where it is compressed."""
    if project.url.startswith("postgresql"):
        tables = [f'"{schema}"."{name}"' for schema, name in project.rows(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'"
        )]  # fmt: skip
    else:
        tables = [f'"{name}"' for (name,) in project.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert len(tables) > 4
    return "\n".join(shown(cell) for table in tables for row in project.rows(f"SELECT * FROM {table}") for cell in row)


def shown(cell: object) -> str:
    import zlib

    if not isinstance(cell, (bytes, memoryview)):
        return str(cell)
    try:
        return zlib.decompress(bytes(cell)).decode("latin-1")
    except zlib.error:
        return bytes(cell).decode("latin-1")


def test_a_ledger_holds_no_encrypted_value_in_clear_and_a_resumed_run_reads_it(project: Project) -> None:
    died = project.dfrun("p.yaml", "--run-id", "r1", *GIVEN, DFRUN_KEY_1=key())
    assert died[0] == -signal.SIGKILL, died
    assert not [secret for secret in SECRETS if secret in everything(project)]
    for env, code in (({}, "DF461"), ({"DFRUN_KEY_1": key(1)}, "DF")):
        refused, _, err = project.dfrun("resume", "r1", **env)
        assert refused != 0 and code in err
    code, out, err = project.dfrun("resume", "r1", "-o", "json", DFRUN_KEY_1=key())
    assert code == 0, err
    outputs = json.loads(out)["outputs"]
    assert (outputs["ssn"], outputs["mail"], outputs["said"]) == (*SECRETS, SECRETS[0])
    text = everything(project)
    assert not [secret for secret in SECRETS if secret in text]
    assert project.rows(f"SELECT count(*) FROM {project.ledger('output_chunks')}")[0][0] > 0
    assert text.count("sealed:") > 6


def test_what_a_run_recorded_is_sealed_anew_and_the_run_goes_on(project: Project) -> None:
    """And the old key may go, but for the index of searchable fields."""
    assert project.dfrun("p.yaml", "--run-id", "r1", *GIVEN, DFRUN_KEY_1=key())[0] == -signal.SIGKILL
    settings = (project.folder / "dfrun.yaml").read_text()
    both = settings.replace("current: k1, keys: {", "current: k2, search: k1, keys: {k2: {env: K2}, ")
    (project.folder / "dfrun.yaml").write_text(both)
    env = {"DFRUN_KEY_1": key(), "K2": key(2)}

    def status() -> dict[str, str]:
        code, out, err = project.dfrun("keys", "status", ".", **env)
        assert code == 0, err
        return {line.split("  ")[1]: line for line in out.splitlines() if line.startswith("the ledger")}

    before = status()
    assert list(before) == ["k1"]
    code, out, err = project.dfrun("keys", "reencrypt", ".", **env)
    assert code == 0 and "the ledger: " in err, out + err
    assert {k: line.replace("k2", "k1") for k, line in status().items()} == {"k2": before["k1"]}
    assert "nothing to do" in project.dfrun("keys", "reencrypt", ".", **env)[1]
    code, out, err = project.dfrun("resume", "r1", "-o", "json", **env)
    assert code == 0 and json.loads(out)["outputs"]["ssn"] == SECRETS[0], out + err
    assert project.rows(f"SELECT count(*) FROM {project.ledger('output_chunks')}")[0][0] > 0
    again = both.replace("current: k2", "current: k1")
    (project.folder / "dfrun.yaml").write_text(again)
    assert project.dfrun("keys", "reencrypt", ".", **env)[0] == 0, "chunks and outputs, too"
    assert list(status()) == ["k1"]


def test_a_key_of_a_run_gives_its_outputs_again_from_the_seal(project: Project) -> None:
    (project.folder / "died").touch()
    words = ("p.yaml", "--idempotency-key", "monday", "-o", "json")
    first = project.dfrun(*words, *GIVEN, DFRUN_KEY_1=key())
    again = project.dfrun(*words, *GIVEN, DFRUN_KEY_1=key())
    assert first[0] == again[0] == 0, (first, again)
    assert json.loads(first[1])["outputs"] == json.loads(again[1])["outputs"]
    assert project.dfrun(*words, "-p", "ssn=other", "-p", "email=x", DFRUN_KEY_1=key())[0] == 2


UNDO_HEAD = HEAD + "\non_failure: {undo: all}"
UNDONE = """
old: {node: Person.create, with: {name: Bob}, inputs: {email: params.email, ssn: params.ssn}}
change:
  node: Person.bulk_upsert
  with:
    key: [email]
    data: [{name: Bob, email: ann@example.org, ssn: changed-ssn}, {name: Cy, email: cy@example.org, ssn: new-ssn}]
  after: old
  undo: auto
gone: {node: Person.bulk_delete, with: {filter: {name: Bob}}, after: change, undo: auto}
one: {node: Person.upsert, with: {key: [email], name: Di, email: di@example.org, ssn: di-ssn}, after: gone, undo: auto}
fails: {node: python.call, with: {function: "work:refuse"}, after: one}
"""


def test_writes_of_sealed_fields_are_taken_back(project: Project) -> None:
    project.write(UNDONE, UNDO_HEAD)
    code, out, err = project.dfrun("p.yaml", "--run-id", "r1", *GIVEN, DFRUN_KEY_1=key())
    assert code == 1, (out, err)
    assert project.rows("SELECT name FROM person") == [("Bob",)], (out, err)
    text = everything(project)
    assert not [value for value in SECRETS[:1] if value in text]
    project.write("found: {node: Person.read, with: {email: ann@example.org}}", tail="outputs: {ssn: found.ssn}")
    code, out, err = project.dfrun("p.yaml", "-o", "json", DFRUN_KEY_1=key())
    assert code == 0 and json.loads(out)["outputs"] == {"ssn": SECRETS[0]}, (out, err)


def test_a_record_that_was_moved_to_another_step_does_not_open(project: Project) -> None:
    project.dfrun("p.yaml", "--run-id", "r1", *GIVEN, DFRUN_KEY_1=key())
    steps = project.ledger("steps")
    project.rows(
        f"UPDATE {steps} SET output = (SELECT output FROM {steps} WHERE step_id = 'add') WHERE step_id = 'seen'"
    )
    code, _, err = project.dfrun("resume", "r1", DFRUN_KEY_1=key())
    assert code != 0 and "DF543 the record of run r1 cannot be opened" in err
