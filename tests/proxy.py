"""A small proxy before PostgreSQL that breaks one connection around a COMMIT of a step."""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Callable
from types import TracebackType

import sqlalchemy as sa


class Cut(enum.Enum):
    """When the connection breaks."""

    BEFORE = "the COMMIT never reaches the server"
    ANSWER_LOST = "the server commits, its answer never comes"
    AFTER = "the answer has come, then the connection is gone"
    DURING = "half of the COMMIT's message has been sent"


class Proxy:
    """Listens on a port of its own while it is entered; `at` counts the COMMITs of steps, or what `is_counted` says."""

    def __init__(self, target: sa.URL, cut: Cut, at: int, is_counted: Callable[[bytes], bool] | None = None) -> None:
        self._socket = f"{target.query['host']}/.s.PGSQL.5432"
        self._target, self._cut, self._at = target, cut, at
        self._is_counted = is_counted or _is_commit
        self.cuts = 0
        self.is_silent = False
        """From now on nothing is passed on, and nothing refused."""
        self._seen = 0
        self._ready = threading.Event()
        self._stop: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.url = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._thread.join()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{self._target.username}@127.0.0.1:{port}/{self._target.database}"
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(over.set)  # type: ignore[assignment, return-value]
        self._ready.set()
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_unix_connection(self._socket)
        link = _Link(self, reader, writer, back_reader, back_writer)
        try:
            await asyncio.gather(link.forward(), link.backward())
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, back_writer):
                each.transport.abort()

    def wants_cut(self, message: bytes) -> bool:
        """Whether this is the message to break at."""
        if not self._is_counted(message):
            return False
        self._seen += 1
        if self._seen != self._at:
            return False
        self.cuts += 1
        return True


def _is_commit(message: bytes) -> bool:
    return message[:1] == b"Q" and b"COMMIT" in message and b".steps SET status" in message


class _Link:
    """One connection, both ways."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
        back_reader: asyncio.StreamReader, back_writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self.proxy, self.cut = proxy, proxy._cut
        self.reader, self.writer = reader, writer
        self.back_reader, self.back_writer = back_reader, back_writer
        self.is_mute = False
        self.ends_after_answer = False

    async def forward(self) -> None:
        """From the client: the first message has no type, the others do."""
        is_first = True
        while True:
            kind = b"" if is_first else await self.reader.readexactly(1)
            size = await self.reader.readexactly(4)
            body = await self.reader.readexactly(int.from_bytes(size) - 4)
            message = kind + size + body
            is_first = is_first and body[:4] == (80877103).to_bytes(4)  # a request for TLS comes before the first
            if self.proxy.is_silent:
                continue
            if kind and self.proxy.wants_cut(message):
                await self._break(message)
                continue
            self.back_writer.write(message)
            await self.back_writer.drain()

    async def _break(self, message: bytes) -> None:
        if self.cut is Cut.BEFORE:
            raise ConnectionError
        if self.cut is Cut.DURING:
            self.back_writer.write(message[: len(message) // 2])
            await self.back_writer.drain()
            raise ConnectionError
        self.is_mute = self.cut is Cut.ANSWER_LOST
        self.ends_after_answer = True
        self.back_writer.write(message)
        await self.back_writer.drain()

    async def backward(self) -> None:
        """From the server."""
        while True:
            data = await self.back_reader.read(65536)
            if not data:
                raise ConnectionError
            if not self.is_mute and not self.proxy.is_silent:
                self.writer.write(data)
                await self.writer.drain()
            if self.ends_after_answer and b"COMMIT\x00" in data:
                await asyncio.sleep(0.02)
                raise ConnectionError
