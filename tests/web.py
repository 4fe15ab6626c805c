"""A server for the tests of requests: it keeps what it was asked, and breaks off when it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Web:
    """The server's address, what was asked, and the payments by their key: one key pays once."""

    host: str = ""
    asked: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    paid: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """What the next answers to /status say."""


@contextmanager
def web() -> Iterator[Web]:
    """A server on a port of its own."""
    state = Web()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def act(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size).decode()
            state.asked.append((self.command, self.path, dict(self.headers.items()), body))
            match self.path.partition("?")[0]:
                case "/rates":
                    rates = [{"currency": "EUR", "rate": 1.0825, "day": "2026-01-31"}, {"currency": "CHF", "rate": 1}]
                    self.answer(200, json.dumps(rates).encode())
                case "/pay":
                    key = self.headers["Idempotency-Key"]
                    state.paid.setdefault(key, f"receipt-{len(state.paid) + 1}")
                    self.answer(201, json.dumps({"receipt": state.paid[key], "amount": "7.50"}).encode())
                case "/pay-and-die":
                    state.paid.setdefault(self.headers["Idempotency-Key"], f"receipt-{len(state.paid) + 1}")
                    self.close_connection = True
                case "/pay-slowly":
                    key = self.headers["Idempotency-Key"]
                    state.paid.setdefault(key, f"receipt-{len(state.paid) + 1}")
                    time.sleep(2.5)
                    self.answer(201, json.dumps({"receipt": state.paid[key]}).encode())
                case "/away":
                    self.answer(302, b"", Location=f"http://{state.host}/rates")
                case "/status":
                    self.answer(state.statuses.pop(0) if state.statuses else 200, b'{"receipt": "late"}')
                case "/large":
                    self.answer(200, b"x" * (17 * 2**20))
                case _:
                    self.answer(404, b"no")

        do_GET = do_POST = do_PUT = do_DELETE = act

        def log_message(self, format: str, *arguments: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
