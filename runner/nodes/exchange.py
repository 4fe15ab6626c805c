"""One HTTP exchange with a host that the project allows: the address is looked up once, judged, and connected to, so
that no answer of a name server, redirect or proxy leads anywhere else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from runner.errors import Problem, StepError, UndecidedError
from schemas.types import ValueProblem

if TYPE_CHECKING:
    from schemas.settings import HttpHost

LARGEST_ANSWER = 16 * 1024 * 1024
CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 30.0
_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_DECLARE = "http: {hosts: [%s]} in dfrun.yaml allows it"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes. `may_be_private`: the host may lie in a network of one's own."""

    scheme: str
    host: str
    port: int
    path: str
    may_be_private: bool

    @property
    def shown(self) -> str:
        """The host, and the port where it is not the usual one; a path may hold what is nobody's business."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    method: str
    address: Address
    headers: Mapping[str, str]
    body: bytes | None = None

    @property
    def is_safe(self) -> bool:
        """Whether it only reads, so that sending it again does no harm."""
        return self.method in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


def read_address(url: str, hosts: Sequence[HttpHost], query: Mapping[str, str]) -> Address:
    """The parts of an address whose host is allowed. Raises `ValueProblem`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueProblem("is no address", fix="https://host/path") from None
    if parts.scheme not in _PORTS or not parts.hostname or re.search(r"[\x00-\x20\x7f\\]", url):
        raise ValueProblem("is no address", kind="shape", fix="https://host/path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.lower()
    if parts.username is not None or not _HOST.fullmatch(host):
        what = "has a user name in it" if parts.username is not None else "has a host that is none"
        raise ValueProblem(what, kind="shape", fix="inputs: {key: secrets.NAME} sends a secret in a header")
    port = port or _PORTS[parts.scheme]
    allowed = next((h for h in hosts if _matches(h.host, host, port, parts.scheme)), None)
    name = host if port == _PORTS[parts.scheme] else f"{host}:{port}"
    if allowed is None:
        why = "requests go only to hosts that the project names"
        raise ValueProblem(f"{name} is not an allowed host", kind="shape", why=why, fix=_DECLARE % name)
    if parts.scheme == "http" and not allowed.plain:
        what = f"{name} is to be reached without TLS"
        raise ValueProblem(what, kind="shape", why="everybody on the way could read and change it",
                           fix=f"https://…, or {{host: {name}, plain: true}}")  # fmt: skip
    more = urlencode(query)
    path = (parts.path or "/") + ("?" if parts.query or more else "") + "&".join(p for p in (parts.query, more) if p)
    return Address(parts.scheme, host, port, path, allowed.private)


def _matches(declared: str, host: str, port: int, scheme: str) -> bool:
    """Whether `host` or `host:port` of the project is this one."""
    name, _, number = declared.lower().rpartition(":") if not declared.endswith("]") else (declared.lower(), "", "")
    if not name or not number.isdigit():
        return declared.lower() == host and port == _PORTS[scheme]
    return name == host and port == int(number)


async def exchange(request: Request) -> Answer:
    """Send a request and take the answer, whatever its status.

    Raises `StepError` DF558 (refused), DF559 (class transient: nothing was sent, or it only reads) and
    `UndecidedError` DF559 where nobody knows whether the other side has acted.
    """
    import httpx

    address = request.address
    target = await _look_up(address)
    headers = {"Host": address.shown, **request.headers}
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    path = quote(address.path, safe="%/:?#[]@!$&'()*+,;=~").encode()
    url = httpx.URL(scheme=address.scheme, host=target, port=address.port, raw_path=path)
    extensions = {"sni_hostname": address.host.strip("[]")}
    # a proxy of the environment would look the name up by itself
    async with httpx.AsyncClient(trust_env=False, timeout=timeout, follow_redirects=False) as client:
        try:
            sent = client.build_request(
                request.method, url, headers=headers, content=request.body, extensions=extensions
            )
            answer = await client.send(sent, stream=True)
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    what = f"{address.shown} answers with more than {LARGEST_ANSWER // 2**20} MiB"
                    raise _broken(request, what, "ask for less at a time")
            await answer.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            what = f"{address.shown} could not be reached ({type(error).__name__})"
            raise StepError(Problem("DF559", what, None, "nothing was sent"), "transient") from error
        except httpx.TimeoutException as error:
            raise _broken(request, f"{address.shown} does not answer") from error
        except httpx.HTTPError as error:
            raise _broken(request, f"{address.shown}: the connection broke ({type(error).__name__})") from error
    return Answer(answer.status_code, bytes(body))


def _broken(request: Request, what: str, fix: str = "") -> StepError:
    """No whole answer: harmless where the request only reads."""
    problem = Problem("DF559", what, None, "", fix)
    return StepError(problem, "transient") if request.is_safe else UndecidedError(problem)


async def _look_up(address: Address) -> str:
    """The address of the host to connect to. Raises `StepError` DF558 where it has none that is allowed."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await loop.getaddrinfo(address.host.strip("[]"), address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        what = f"the name {address.host} cannot be looked up"
        raise StepError(Problem("DF559", what, None, "nothing was sent"), "transient") from error
    numbers = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [n for n in numbers if address.may_be_private or is_public(n)]
    if not allowed:
        what = f"{address.shown} lies in a private network"
        why = "a name that leads inside could reach what was never meant to be reached"
        fix = f"http: {{hosts: [{{host: {address.shown}, private: true}}]}} in dfrun.yaml allows it"
        raise StepError(Problem("DF558", what, None, why, fix))
    return allowed[0]


_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def is_public(number: str) -> bool:
    """Whether an address is one of the open internet, whatever it is wrapped in.

    >>> [is_public(n) for n in ("93.184.216.34", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00::1")]
    [True, False, False, False, False]
    """
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast
