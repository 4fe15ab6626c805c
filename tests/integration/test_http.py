"""Requests to a real server: who may be asked, what is given, and that no act is done twice."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from durable import Project, wait_until
from warm import Warm
from web import Web, web

from runner.errors import StepError
from runner.nodes import exchange
from runner.nodes.exchange import Address, Request, is_public, read_address
from schemas.settings import HttpHost
from schemas.types import ValueProblem


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as state:
        yield state


@pytest.fixture
def project(tmp_path: Path, url: str, warm: Warm, server: Web) -> Project:
    project = Project(tmp_path, url, warm)
    allow(project, server, "private: true, plain: true")
    return project


def allow(project: Project, server: Web, how: str) -> None:
    host = f"{{host: '{server.host}', {how}}}" if how else f"'{server.host}'"
    hosts = f"http: {{hosts: [{host}]}}\n"
    (project.folder / "dfrun.yaml").write_text(f"database: {json.dumps(project.url)}\nmigrate: auto\n{hosts}")


def test_an_answer_is_given_in_its_declared_types(project: Project, server: Web) -> None:
    project.write(
        f"""
        rates:
          node: http.request
          with:
            url: http://{server.host}/rates
            query: {{base: US D}}
            headers: {{X-Team: shop}}
            columns: {{currency: string, rate: decimal, day: date?}}
          inputs: {{key: secrets.token}}
        load: {{node: Item.bulk_create, foreach: rates.rows, with: {{data: []}}, when: {{rates.count: 0}}}}
        each: {{node: Item.create, foreach: rates.rows, inputs: {{sku: item.currency}}}}
        whole: {{node: http.request, with: {{url: "http://{server.host}/rates"}}}}
        """,
        "secrets: {token: {env: SHOP_TOKEN}}",
        "outputs: {rates: rates.rows, status: whole.status, first: whole.json}",
    )
    code, out, err = project.dfrun("p.yaml", "-o", "json", SHOP_TOKEN="s3cret-token")
    told = json.loads(out)
    assert code == 0, out + err
    assert told["outputs"]["rates"] == [
        {"currency": "EUR", "rate": "1.0825", "day": "2026-01-31"}, {"currency": "CHF", "rate": "1", "day": None},
    ]  # fmt: skip
    assert told["outputs"]["status"] == 200 and told["outputs"]["first"][1]["rate"] == 1
    method, path, headers, _ = server.asked[0]
    assert (method, path, headers["X-Team"]) == ("GET", "/rates?base=US+D", "shop")
    assert headers["Authorization"] == "Bearer s3cret-token" and "Idempotency-Key" not in headers
    assert project.rows("SELECT sku FROM item ORDER BY sku") == [("CHF",), ("EUR",)]
    recorded = project.rows(f"SELECT inputs, definition, outputs, summary FROM {project.ledger('runs')}")
    assert "s3cret" not in str(recorded) + out + err


PAY = """
item: {{node: Item.create, with: {{sku: a, stock: 5}}}}
pay:
  node: http.request
  with:
    method: POST
    url: http://{host}/{path}
    json: {{amount: 7.50, text: [a, ""]}}
    fields: {{receipt: string, amount: decimal?}}
    {more}
  inputs: {{json.stock: item.stock}}
note: {{node: Item.create, inputs: {{sku: pay.receipt}}}}
"""


def test_an_act_carries_a_key_and_is_recorded(project: Project, server: Web) -> None:
    project.write(PAY.format(host=server.host, path="pay", more=""), tail="outputs: {receipt: pay.receipt}")
    code, out, err = project.dfrun("p.yaml", "--run-id", "r1", "-o", "json")
    assert (code, json.loads(out)["outputs"]) == (0, {"receipt": "receipt-1"}), out + err
    _, _, headers, body = server.asked[0]
    assert headers["Idempotency-Key"] == "r1:pay" and headers["Content-Type"] == "application/json"
    assert json.loads(body, parse_float=Decimal) == {"amount": Decimal("7.5"), "text": ["a", ""], "stock": 5}


@pytest.mark.parametrize("path", ["pay-and-die", "pay-slowly"])
def test_an_act_without_an_answer_waits_for_its_user(project: Project, server: Web, path: str) -> None:
    steps = PAY.format(host=server.host, path=path, more="").replace("  inputs", "  timeout: 1s\n  inputs")
    project.write(steps)
    code, out, _ = project.dfrun("p.yaml", "--run-id", "r1", "-o", "json")
    told = json.loads(out)
    assert (code, told["state"], told["steps"]["pay"]["attempts"]) == (5, "needs_decision", 1)
    assert told["error"]["code"] == "DF554" and len(server.paid) == 1
    assert "--mark-done pay" in told["error"]["fix"] and "--redo pay" in told["error"]["fix"]
    assert project.dfrun("resume", "r1")[0] == 5 and len(server.asked) == 1
    assert project.dfrun("resume", "r1", "--mark-done", "pay", "--with-output", "{receipt: receipt-1}")[0] == 0
    assert project.rows("SELECT sku FROM item ORDER BY sku") == [("a",), ("receipt-1",)]


def test_an_idempotent_act_is_tried_again_with_the_same_key(project: Project, server: Web) -> None:
    server.statuses = [500, 503]
    project.write(PAY.format(host=server.host, path="status", more="idempotent: true"))
    code, out, err = project.dfrun("p.yaml", "--run-id", "r1", "-o", "json")
    assert (code, json.loads(out)["steps"]["pay"]["attempts"]) == (0, 3), out + err
    assert {headers["Idempotency-Key"] for _, _, headers, _ in server.asked} == {"r1:pay"} and len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "code", "kind", "state"),
    [(404, 1, "not_found", "failed"), (409, 1, "conflict", "failed"), (422, 1, "error", "failed"),
     (503, 75, "transient", "failed"), (502, 5, "error", "needs_decision")],
)  # fmt: skip
def test_a_status_says_whether_an_act_was_done(
    tmp_path: Path, warm: Warm, server: Web, status: int, code: int, kind: str, state: str
) -> None:
    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    allow(project, server, "private: true, plain: true")
    server.statuses = [status]
    project.write(PAY.format(host=server.host, path="status", more=""))
    got, out, _ = project.dfrun("p.yaml", "--run-id", "r1", "-o", "json")
    told = json.loads(out)
    assert (got, told["error"]["class"], told["state"], len(server.asked)) == (code, kind, state, 1)
    if state == "failed":
        assert project.dfrun("resume", "r1")[0] == 0  # it was answered: another try is no double
        assert len(server.asked) == 2


def test_a_killed_run_doubles_nothing(project: Project, server: Web) -> None:
    project.write(PAY.format(host=server.host, path="pay-slowly", more="idempotent: true"))
    run = project.start("p.yaml", "--run-id", "r1")
    wait_until(lambda: bool(server.paid))
    import os

    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert project.dfrun("resume", "r1")[0] == 0
    assert server.paid == {"r1:pay": "receipt-1"}
    assert [headers["Idempotency-Key"] for _, _, headers, _ in server.asked] == ["r1:pay", "r1:pay"]
    assert project.rows("SELECT sku FROM item ORDER BY sku") == [("a",), ("receipt-1",)]


def test_a_dry_run_reads_and_does_not_act(project: Project, server: Web) -> None:
    more = "stand_in: {status: 201, receipt: x1}"
    project.write(
        PAY.format(host=server.host, path="pay", more=more)
        + f"rates: {{node: http.request, with: {{url: 'http://{server.host}/rates'}}}}\n",
        tail="outputs: {receipt: pay.receipt, status: rates.status}",
    )
    code, out, err = project.dfrun("p.yaml", "--dry-run", "-o", "json")
    told = json.loads(out)
    assert (code, told["outputs"]) == (0, {"receipt": "x1", "status": 200}), out + err
    assert told["left_out"] == [{"step": "pay", "what": f"sends POST to {server.host}", "times": 1}]
    assert [path for _, path, _, _ in server.asked] == ["/rates"]


@pytest.mark.parametrize(
    ("how", "path", "words"),
    [
        ("plain: true", "/rates", "lies in a private network"),
        ("private: true", "/rates", "without TLS"),
        (None, "/rates", "is not an allowed host"),
        ("private: true, plain: true", "/away", "redirects are not followed"),
        ("private: true, plain: true", "/large", "more than 16 MiB"),
    ],
)
def test_what_may_not_be_asked_is_refused(
    tmp_path: Path, warm: Warm, server: Web, how: str | None, path: str, words: str
) -> None:
    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    if how is not None:
        allow(project, server, how)
    project.write(f"ask: {{node: http.request, with: {{url: 'http://{server.host}{path}'}}, retry: {{max: 0}}}}")
    code, _, err = project.dfrun("p.yaml")
    assert code in (1, 2, 75) and words in err
    assert len(server.asked) == (path != "/rates")


def test_a_url_that_arrives_is_judged_like_one_that_stands_there(tmp_path: Path, warm: Warm, server: Web) -> None:
    project = Project(tmp_path, f"sqlite:///{tmp_path}/test.db", warm)
    allow(project, server, "private: true, plain: true")
    project.write(
        "ask: {node: http.request, inputs: {url: params.url}}", "params: {url: {type: string, required: true}}"
    )
    assert project.dfrun("p.yaml", "-p", f"url=http://{server.host}/rates")[0] == 0
    for other in ("http://localhost:1/x", f"http://{server.host}@evil.example/", "file:///etc/passwd", "http://[::1]/"):
        code, _, err = project.dfrun("p.yaml", "-p", f"url={other}")
        assert code == 1 and "DF501" in err, err
    assert len(server.asked) == 1


HOSTS = (HttpHost(host="api.example.org"), HttpHost(host="shop.example.org:8443"), HttpHost(host="[fd00::1]"))


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://api.example.org/x", True), ("https://API.example.org/", True), ("https://api.example.org:443/", True),
        ("https://api.example.org:8443/", False), ("https://shop.example.org:8443/", True),
        ("https://shop.example.org/", False), ("https://api.example.org.evil.example/", False),
        ("https://api.example.org@evil.example/", False), ("https://evil.example/#@api.example.org", False),
        ("https://evil.example\\@api.example.org/", False), ("https://api.example.org\n.evil.example/", False),
        ("ftp://api.example.org/", False), ("//api.example.org/", False), ("https://[fd00::1]/", True),
        ("https://api.example.org%2eevil.example/", False), ("https://", False), ("https://api.example.org:x/", False),
    ],
)  # fmt: skip
def test_only_allowed_hosts_are_asked(url: str, is_allowed: bool) -> None:
    try:
        address = read_address(url, HOSTS, {})
    except ValueProblem:
        assert not is_allowed
    else:
        assert is_allowed and any(address.shown.lower() == host.host for host in HOSTS)


@pytest.mark.parametrize(
    ("number", "is_open"),
    [
        ("93.184.216.34", True), ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
        ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("2606:2800:220:1:248:1893:25c8:1946", True),
    ],
)  # fmt: skip
def test_an_address_is_looked_at_whatever_it_is_wrapped_in(number: str, is_open: bool) -> None:
    assert is_public(number) == is_open


async def _names(*_: object, **__: object) -> list[tuple[object, ...]]:
    """A name server that answers with a public address first, and with a private one when it is asked again."""
    _answers.append("169.254.169.254" if _answers else "93.184.216.34")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (_answers[-1], 443))]


_answers: list[str] = []


def test_a_name_is_looked_up_once_and_its_address_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    import httpx

    seen: list[httpx.Request] = []

    async def send(self: httpx.AsyncClient, request: httpx.Request, **_: object) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"), request=request)

    monkeypatch.setattr(httpx.AsyncClient, "send", send)
    _answers.clear()

    async def ask() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", _names)
        address = Address("https", "api.example.org", 443, "/x", False)
        await exchange.exchange(Request("GET", address, {}))
        assert (seen[0].url.host, seen[0].headers["Host"]) == ("93.184.216.34", "api.example.org")
        assert seen[0].extensions["sni_hostname"] == "api.example.org"  # the certificate is that of the name
        with pytest.raises(StepError, match=r"DF558 api\.example\.org lies in a private network"):
            await exchange.exchange(Request("GET", address, {}))

    asyncio.run(ask())
    assert len(seen) == 1 and len(_answers) == 2
