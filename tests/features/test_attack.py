"""The command line under attack: the trail of every way to write is whole and tells who did it, tampering shows, and no
sealed value is in clear in any file, log or message.
"""

import base64
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from durable import Project, empty_database
from warm import Warm

MODELS = """
  Person:
    fields:
      name: {type: string, pii: true}
      email: {type: string, unique: true}
      ssn: string
      n: {type: integer, default: 0}
    features: {audit_log: true, soft_delete: true, versioned: true, encryption: {fields: [ssn], searchable: [email]}}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, warm: Warm) -> Iterator[Project]:
    """A project whose people are sealed and recorded."""
    if request.param == "sqlite":
        yield prepared(Project(tmp_path, f"sqlite:///{tmp_path}/p.db", warm))
        return
    with empty_database(request.getfixturevalue("postgres_url")) as url:
        yield prepared(Project(tmp_path, url, warm))


def prepared(project: Project) -> Project:
    for file, more in (
        ("models.yaml", MODELS),
        ("work.py", "\ndef refuse() -> int: raise ValueError\n"),
        ("dfrun.yaml", "encryption: {current: k1, keys: {k1: {env: KEY}}}\n"),
    ):
        with (project.folder / file).open("a") as text:
            text.write(more)
    return project


ENV = {"KEY": base64.b64encode(bytes(32)).decode(), "DFRUN_ACTOR": "mallory"}
EVERY_WAY = """
two: {node: Person.bulk_create, with: {data: [{name: A, email: a, ssn: x}, {name: B, email: b, ssn: y}]}}
one: {node: Person.create, with: {name: C, email: c, ssn: z}, after: two}
changed: {node: Person.update, with: {email: c, update: {n: 1}}, after: one}
put: {node: Person.upsert, with: {key: [email], name: C2, email: c, ssn: z2}, after: changed}
puts: {node: Person.bulk_upsert, with: {key: [email], data: [{name: A, email: a, ssn: x2}, {name: D, email: d, ssn: w}]}, after: put}
some: {node: Person.bulk_update, with: {filter: {n: 0}, update: {n: {$inc: 2}}}, after: puts}
listed: {node: Person.list, with: {fields: [id]}, after: some}
each: {node: Person.update, foreach: listed.rows, inputs: {id: item.id}, with: {update: {n: {$inc: 1}}}}
own: {node: sql.execute, with: {sql: update person set n = n + 1}, after: each}
hidden: {node: Person.delete, with: {email: b}, after: own}
back: {node: Person.update, with: {email: b, restore: true}, after: hidden}
gone: {node: Person.bulk_delete, with: {filter: {email: d}, hard: true}, after: back}
erased: {node: gdpr.erase, with: {model: Person, id: 2}, after: gone}
"""


def test_every_way_to_write_is_in_the_trail_and_tampering_is_told(project: Project) -> None:
    project.write(EVERY_WAY, tail="outputs: {unreached: erased.unreached}")
    code, out, err = project.dfrun("p.yaml", "--run-id", "all", **ENV)
    assert code == 0 and "1 run of the ledger, whose outputs may hold values" in out, out + err
    project.write(
        "made: {node: Person.create, with: {name: E, email: e, ssn: v}, undo: auto}\n"
        "fails: {node: python.call, with: {function: 'work:refuse'}, after: made}",
        "on_failure: {undo: all}",
    )
    assert project.dfrun("p.yaml", "--run-id", "undone", **ENV)[0] == 4
    steps = {row[0] for row in project.rows("SELECT step_id FROM dfrun_audit_entry WHERE run_id = 'all'")}
    assert {step.partition(".")[0] for step in steps} == {
        "two", "one", "changed", "put", "puts", "some", "each", "own", "hidden", "back", "gone", "erased",
    }  # fmt: skip
    assert project.rows("SELECT count(*) FROM dfrun_audit_entry WHERE run_id = 'undone'") == [(2,)]
    code, told, err = project.dfrun("audit", "verify", ".", **ENV)
    assert code == 0 and "the trail is whole" in told, told + err
    head = next(line.split()[1] for line in told.splitlines() if line.strip().startswith("head"))
    code, life, err = project.dfrun("blame", "Person", "3", **ENV)
    assert code == 0 and "by mallory, run all, step put" in life and "n: 2 → 3" in life, life + err
    assert not [word for word in ("z2", "C2", "email_index") if word in life]
    code, life, _ = project.dfrun("blame", "Person", "2", **ENV)
    assert code == 0 and "erased" in life and "B" not in life.replace("by mallory", ""), life
    tampered = {
        "UPDATE dfrun_audit_row SET after = replace(after, '\"n\"', '\"m\"') WHERE key = '1' AND action = 'insert'":
            "its rows were changed",
        "DELETE FROM dfrun_audit_row WHERE position = (SELECT max(position) FROM dfrun_audit_row)": "were written",
        "UPDATE dfrun_audit_entry SET actor = 'ann' WHERE number = 2": "the entry was changed",
        "DELETE FROM dfrun_audit_entry WHERE number = 5": "the entry before it is missing",
        "UPDATE person SET n = 9": "changed by no step of dfrun",
        "DELETE FROM dfrun_audit_head": "does not end at its head",
    }  # fmt: skip
    for statement in tampered:
        project.rows(statement)
    code, told, _ = project.dfrun("audit", "verify", ".", "--head", head, **ENV)
    assert code == 1 and not [words for words in tampered.values() if words not in told], told


def test_no_sealed_value_is_in_clear_in_any_file_log_or_message(
    project: Project, request: pytest.FixtureRequest
) -> None:
    secrets = [f"plain{uuid.uuid4().hex[:12]}" for _ in range(4)]
    open_ = f"open{uuid.uuid4().hex[:12]}"
    rows = ", ".join(f"{{name: {open_}, email: {s}, ssn: s{s}}}" for s in secrets[:2])
    project.write(
        "many: {node: Person.bulk_create, inputs: {data: params.rows}}\n"
        "one: {node: Person.create, with: {name: x}, inputs: {email: params.mail, ssn: params.mail}, after: many}\n"
        "read: {node: Person.read, inputs: {email: one.email}}\n"
        "up: {node: Person.bulk_upsert, with: {key: [email]}, inputs: {data: params.rows}, after: read}\n"
        "set: {node: Person.update, inputs: {id: read.id, update.ssn: params.new}, after: up}\n"
        "bad: {node: Person.create, with: {name: x}, inputs: {email: params.mail, ssn: params.new}, after: set}",
        "params: {rows: {type: list, items: {name: string, email: string, ssn: string}, required: true},"
        " mail: {type: string, required: true}, new: {type: string, required: true}}",
    )
    (project.folder / "given.txt").write_text(f"rows: [{rows}]\nmail: {secrets[2]}\nnew: {secrets[3]}\n")
    words = ("p.yaml", "--params", "given.txt", "--run-id", "r", "-v", "--debug")
    code, out, err = project.dfrun(*words, **ENV)
    (project.folder / "given.txt").unlink()
    assert code == 1 and "DF580" in out + err, out + err
    for more in (("runs", "show", "r"), ("blame", "Person", "1"), ("audit", "verify", "."), ("keys", "status", ".")):
        out += "".join(map(str, project.dfrun(*more, **ENV)))
    assert not [secret for secret in secrets if secret in out + err]
    places = [str(project.folder)]
    if project.url.startswith("postgresql"):
        places.append(str(sa.make_url(project.url).query["host"]))
    for value in (open_, *secrets):
        found = subprocess.run(["grep", "-rlaF", value, *places], capture_output=True, text=True, check=False)
        assert found.returncode == (0 if value == open_ else 1), found.stdout
