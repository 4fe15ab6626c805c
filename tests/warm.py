"""dfrun's command line in processes of its own that start in milliseconds: a server imports everything once and forks
a child a call. Run as a program it is that server; `Warm` talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]


@dataclass
class Call:
    """A running call; its output is in files, so that nobody has to read it for it to go on."""

    pid: int
    out: Path
    err: Path
    _warm: Warm

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        return int(self._warm.ask({"wait": self.pid}))


class Warm:
    """The server and what it is asked."""

    def __init__(self) -> None:
        self._files = Path(tempfile.mkdtemp(prefix="dfrun-warm-"))
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
        )  # fmt: skip

    def ask(self, request: dict[str, object]) -> object:
        """The server's answer."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, folder: Path, words: tuple[str, ...], env: dict[str, str]) -> Call:
        """Begin `dfrun WORDS` in a folder."""
        self._count += 1
        out, err = self._files / f"{self._count}.out", self._files / f"{self._count}.err"
        out.touch()
        err.touch()
        request = {"words": words, "folder": str(folder), "env": env, "out": str(out), "err": str(err)}
        pid = self.ask(request)
        assert isinstance(pid, int)
        return Call(pid, out, err, self)

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def serve() -> None:
    import aiosqlite  # noqa: F401
    import asyncpg  # noqa: F401
    import httpx  # noqa: F401
    import sqlalchemy.dialects.postgresql.asyncpg
    import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

    import runner.cli
    import runner.history
    import runner.run.launch  # noqa: F401
    from runner import report  # noqa: F401
    from runner.cli import progress  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _run(request)
        print(pid, flush=True)


def _run(request: dict[str, object]) -> None:
    from runner.cli import main

    code = 99
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(str(request[name]), os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.chdir(str(request["folder"]))
        for name in ("DFRUN_DATABASE_URL", "DATABASE_URL"):
            os.environ.pop(name, None)
        env = request["env"]
        assert isinstance(env, dict)
        os.environ.update(env)
        if "DFRUN_TEST_PAGES" in env:  # a disk that is full after so many pages
            from runner.dialects import session

            session._PRAGMAS = (*session._PRAGMAS, f"max_page_count={env['DFRUN_TEST_PAGES']}")
        words = request["words"]
        assert isinstance(words, list)
        main(words)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
