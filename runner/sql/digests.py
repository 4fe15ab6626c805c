"""Digests of the trail's rows as Python computes them. SQLite has both functions, so that no row of a bulk write
travels back to be hashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SEPARATOR = "\x1f"


def digest_of_row(values: Sequence[object]) -> bytes:
    """The digest of one changed row, from its `FIELDS`. The salt keeps a digest from telling the values behind it."""
    return hashlib.sha256(SEPARATOR.join(["" if v is None else str(v) for v in values]).encode()).digest()


def row_digest(*values: object) -> str:
    """`digest_of_row` in hex, as the trail keeps it."""
    return digest_of_row(values).hex()


def trail_digest(digests: str | None) -> str:
    """The digest of many rows, of their own digests in hex, one behind the other."""
    return hashlib.sha256(bytes.fromhex(digests or "")).hexdigest()
