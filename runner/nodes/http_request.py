"""`http.request`: one request to a host that the project allows, and its answer in declared types."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from runner.data.cells import json_value
from runner.data.rows import rows_of_mappings
from runner.errors import ErrorClass, Problem, StepError, UndecidedError
from runner.nodes.arguments import STAND_IN, read_ports, read_stand_in, read_switch, read_under
from runner.nodes.base import Checked, Context, External, Subject
from runner.nodes.exchange import Answer, Request, exchange, read_address
from runner.nodes.extras import wants
from runner.nodes.text_format import as_text
from runner.nodes.textfile import declared_types
from schemas.jsonvalues import json_value as tree_of
from schemas.nodes import Port
from schemas.parsing import deliver
from schemas.types import Connection, ValueProblem, ValueType

if TYPE_CHECKING:
    from schemas.settings import HttpHost

TEXT, INTEGER, _TYPES = ValueType("text"), ValueType("integer"), ValueType("json")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_KEY_HEADER = "Authorization"
_OURS = ("host", "content-length", "transfer-encoding", "connection", "idempotency-key")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_REFUSED: Mapping[int, ErrorClass] = {404: "not_found", 410: "not_found", 409: "conflict", 412: "conflict"}
_LATER = (408, 425, 429, 503)
"""The other side did nothing, and may do it later."""
_UNKNOWN = (500, 502, 504)
"""Who answers may not be who acted: the act may be done."""

PORTS = {
    port.name: port
    for port in (
        Port("url", ValueType("string"), True, help="https://host/path; the host is allowed in dfrun.yaml"),
        Port("method", ValueType("enum", values=METHODS), default="GET", literal=True, help="GET and HEAD only read"),
        Port("query", ValueType("record"), help="what follows the ?, by name"),
        Port("headers", ValueType("record"), help="headers by name"),
        Port("key", ValueType("secret"), help="a secret, sent as `Authorization: Bearer …`"),
        Port("key_header", ValueType("string"), default=_KEY_HEADER, literal=True, help="another header, which is it"),
        Port("json", ValueType("json"), help="a body of JSON"),
        Port("body", TEXT, help="a body of text"),
        Port("expect", ValueType("list", items=INTEGER), literal=True, help="the right statuses; else 200 to 299"),
        Port("fields", _TYPES, literal=True, shape="column_types", help="the answer is an object: name: type"),
        Port("columns", _TYPES, literal=True, shape="column_types", help="it is a list of objects, given as rows"),
        Port("idempotent", ValueType("boolean"), default=False, literal=True, help="the same key makes it harmless"),
        STAND_IN,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked, and what an answer must be like. `expect`: the statuses that are right."""

    method: str
    url: object
    hosts: Sequence[HttpHost]
    query: Mapping[str, object]
    headers: Mapping[str, object]
    key: object = field(repr=False)
    key_header: str
    content: object = field(repr=False)
    is_json: bool
    expect: Sequence[int] | None
    output: ValueType
    shape: Literal["any", "fields", "columns"]

    @property
    def is_safe(self) -> bool:
        """Whether it only reads."""
        return self.method in ("GET", "HEAD")

    def request(self, external_key: str) -> Request:
        """The request as it is sent. Raises `ValueProblem`."""
        query = {name: as_text(value) for name, value in self.query.items()}
        address = read_under("url", lambda: read_address(str(self.url), self.hosts, query))
        headers = {name: as_text(value) for name, value in self.headers.items()}
        if self.key is not None:
            headers[self.key_header] = f"Bearer {self.key}" if self.key_header == _KEY_HEADER else str(self.key)
        body: bytes | None = None
        if self.is_json:
            headers = {"Content-Type": "application/json", **headers}
            body = json.dumps(self.content, ensure_ascii=False, default=json_value).encode()
        elif self.content is not None:
            headers = {"Content-Type": "text/plain; charset=utf-8", **headers}
            body = str(self.content).encode()
        if not self.is_safe and external_key:
            headers["Idempotency-Key"] = external_key
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                raise ValueProblem(f"{name} has a character that no header can have", ("headers",))
        return Request(self.method, address, headers, body)


class HttpRequest:
    """Takes an address, headers and a body; gives `status`, and the answer as `json`, `rows`, or its `fields`."""

    name = "http.request"
    summary = "Ask a server, or tell it something (extra `http`). Its host must be allowed in dfrun.yaml."
    uses_database = False
    writes = True
    runs_dry = True
    is_repeatable = False
    extra = "http"

    def ports(self, subject: Subject, arguments: Mapping[str, object]) -> dict[str, Port]:
        return dict(PORTS)

    def check(self, arguments: Mapping[str, object], subject: Subject) -> Checked:
        values = read_ports(PORTS, arguments)
        call = _read_call(values, arguments, subject)
        if call.is_safe:
            for name in ("idempotent", "stand_in"):
                if name in arguments and (name != "idempotent" or read_switch(arguments, name)):
                    why = f"{call.method} only reads: it may be sent again, and a dry run sends it"
                    raise ValueProblem(f"{name} says something of acts", (name,), kind="shape", why=why)
            return Checked(call.output, call, only_reads=True)
        does = f"sends {call.method}"
        if not isinstance(call.url, Connection):
            does += f" to {read_address(str(call.url), call.hosts, {}).shown}"
        stand_in = read_stand_in(arguments, call.output)
        return Checked(call.output, call, external=External(does, read_switch(arguments, "idempotent"), stand_in))

    async def run(self, parsed: object, context: Context) -> Mapping[str, object]:
        assert isinstance(parsed, Call)
        wants(self)
        request = parsed.request(context.external_key)
        answer = await exchange(request)
        _judge(parsed, request, answer)
        try:
            return _read_answer(parsed, answer)
        except ValueProblem as problem:
            where = ".".join(map(str, problem.path))
            what = f"{request.address.shown} answers something else than declared: {where + ': ' if where else ''}"
            told = Problem("DF560", what + problem.what, None, "the request itself was answered with success")
            # the act is done, so it must not be forgotten; what it gave is for its user to say
            raise (StepError(told) if parsed.is_safe else UndecidedError(told)) from None


def _read_call(values: Mapping[str, object], arguments: Mapping[str, object], subject: Subject) -> Call:
    method = str(values["method"])
    given = [name for name in ("json", "body") if name in arguments]
    if given and method in ("GET", "HEAD"):
        raise ValueProblem(f"{method} has no body", (given[0],), kind="shape", fix="query: {…}, or method: POST")
    if len(given) == 2:
        raise ValueProblem("json and body are two ways to say one thing", ("body",), kind="shape", fix="use one")
    url = values["url"]
    if not isinstance(url, Connection):
        read_under("url", lambda: read_address(str(url), subject.hosts, {}))
    query, headers = (values.get(name) or {} for name in ("query", "headers"))
    assert isinstance(query, Mapping)
    assert isinstance(headers, Mapping)
    key_header = str(values["key_header"])
    for port, names in (("headers", headers), ("key_header", (key_header,))):
        for name in names:
            if not _NAME.fullmatch(str(name)) or str(name).lower() in _OURS:
                what = f"{name!r} is no header that a step sets"
                raise ValueProblem(what, (port,), kind="name", why="it is no name, or dfrun sets it by itself")
    expect = values.get("expect")
    assert expect is None or isinstance(expect, list)
    content = values.get("json", values.get("body"))
    return Call(
        method, url, subject.hosts, query, headers, values.get("key"), key_header, content,
        "json" in arguments, expect, _output(arguments),
        "fields" if "fields" in arguments else "columns" if "columns" in arguments else "any",
    )  # fmt: skip


def _output(arguments: Mapping[str, object]) -> ValueType:
    """What the step gives: the status, and the answer as far as it is declared."""
    members: dict[str, ValueType] = {"status": INTEGER}
    if "fields" in arguments and "columns" in arguments:
        raise ValueProblem("an answer is an object or a list", ("columns",), kind="shape", fix="fields, or columns")
    if "fields" in arguments:
        types = read_under("fields", lambda: declared_types(arguments["fields"]))
        if "status" in types:
            raise ValueProblem("status is the number of the answer", ("fields", "status"), key=True, kind="name")
        return ValueType("record", fields=members | types)
    if "columns" in arguments:
        types = read_under("columns", lambda: declared_types(arguments["columns"]))
        return ValueType("record", fields=members | {"rows": ValueType("rows", fields=types), "count": INTEGER})
    return ValueType("record", fields=members | {"json": ValueType("json", True), "text": ValueType("text", True)})


def _judge(call: Call, request: Request, answer: Answer) -> None:
    """Raises `StepError` DF559 for a status that is not expected, `UndecidedError` where it says nothing of the act."""
    status = answer.status
    if status in call.expect if call.expect is not None else 200 <= status < 300:
        return
    what = f"{request.address.shown} answers {status}"
    why = "redirects are not followed" if 300 <= status < 400 else ""
    problem = Problem("DF559", what, None, why, "expect: [200, …] names the statuses that are right")
    if status in _UNKNOWN:
        raise StepError(problem, "transient") if call.is_safe else UndecidedError(problem)
    raise StepError(problem, "transient" if status in _LATER else _REFUSED.get(status, "error"))


def _read_answer(call: Call, answer: Answer) -> Mapping[str, object]:
    """The answer in its declared types. Raises `ValueProblem`."""
    fields = call.output.fields or {}
    own: dict[str, object] = {"status": answer.status}
    if call.shape == "any":
        text = answer.body.decode("utf-8", "replace").replace("\x00", "\ufffd")
        try:
            return own | {"json": tree_of(_parsed(answer.body, float)), "text": text}
        except ValueProblem:
            return own | {"json": None, "text": text}
    found = _parsed(answer.body, Decimal)
    if call.shape == "columns":
        if not isinstance(found, list):
            raise ValueProblem("wants a list of objects")
        kind = ValueType("record", fields=fields["rows"].fields)
        items = deliver(ValueType("list", items=kind), found)
        assert isinstance(items, list)
        return own | {"rows": rows_of_mappings(items, tuple(kind.fields or {})), "count": len(items)}
    if not isinstance(found, Mapping):
        raise ValueProblem("wants an object")
    value = deliver(ValueType("record", fields={n: k for n, k in fields.items() if n != "status"}), found)
    assert isinstance(value, dict)
    return own | value


def _parsed(body: bytes, number: type[float] | type[Decimal]) -> object:
    try:
        return json.loads(body, parse_float=number, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueProblem("it is not JSON") from None


def _no_constant(word: str) -> object:
    raise ValueError(word)


KIND = HttpRequest()
