"""What a file was when a run read it, so that a resumed run reads the same or says that it cannot."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runner.errors import Problem, StepError

WHOLE_BYTES = 64 * 1024 * 1024
"""Files up to this size are hashed whole; of larger ones the first and the last mebibyte."""
_END_BYTES = 1024 * 1024

Fingerprint = dict[str, object]


def fingerprint(path: Path) -> Fingerprint:
    """Size, time of the last change, and a hash. Raises `OSError`."""
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if stat.st_size <= WHOLE_BYTES:
            while part := file.read(_END_BYTES):
                digest.update(part)
        else:
            digest.update(file.read(_END_BYTES))
            file.seek(-_END_BYTES, 2)
            digest.update(file.read())
    return {"size": stat.st_size, "changed_ns": stat.st_mtime_ns, "sha256": digest.hexdigest()}


def check_unchanged(path: Path, before: Fingerprint, now: Fingerprint) -> None:
    """Raises `StepError` DF553 when the file is not what it was. A file hashed whole may carry a new time."""
    size = before["size"]
    is_whole = isinstance(size, int) and size <= WHOLE_BYTES
    parts = ("size", "sha256") if is_whole else ("size", "sha256", "changed_ns")
    if any(before.get(part) != now[part] for part in parts):
        why = "rows of it are in the database already, and other rows would not go with them"
        fix = "put the file back as it was; or start a new run"
        raise StepError(Problem("DF553", f"the file {str(path)!r} has changed since the run read it", None, why, fix))
