"""A bank for the example: it keeps its charges in a file, under the key of the request."""

import json
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr


def charge(amount: Decimal, key: UUID, api_key: SecretStr, book: str) -> str:
    """Charge once under a key; a second call with the same key charges nothing more."""
    if not api_key.get_secret_value():
        raise PermissionError("no key")
    if amount > 1000:
        raise ValueError("declined")
    charges = _read(book)
    charges.setdefault(str(key), str(amount))
    Path(book).write_text(json.dumps(charges), encoding="utf-8")
    return f"ch_{key}"


def refund(key: UUID, book: str) -> bool:
    """Give back what was charged under a key; says whether anything was."""
    charges = _read(book)
    found = charges.pop(str(key), None)
    Path(book).write_text(json.dumps(charges), encoding="utf-8")
    return found is not None


def _read(book: str) -> dict[str, str]:
    path = Path(book)
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
