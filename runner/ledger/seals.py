"""How the ledger keeps what a run over encrypted fields gives: sealed as a whole, since a value that was read from such
a field may go on into any step. A sealed text or chunk begins with `sealed:` and opens in its own place alone.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from runner.encryption.vault import Vault
from runner.errors import Problem, StepError, UnreachableError

if TYPE_CHECKING:
    from runner.ledger.records import Record

PREFIX = "sealed:"


class Seals:
    """Seals for one run, or leaves as it is where the run has no vault."""

    def __init__(self, run_id: str, vault: Vault | None = None) -> None:
        self._run_id = run_id
        self._vault = vault

    def close_text(self, text: str, *place: str) -> str:
        """The text as it is kept at a place: `("outputs",)`, or step, kind, part."""
        if self._vault is None:
            return text
        return PREFIX + base64.b64encode(self._vault.seal_bytes(text.encode(), (self._run_id, *place))).decode()

    def open_text(self, kept: str, *place: str) -> str:
        """The text again. Raises `StepError` DF543, DF544."""
        if not is_sealed(kept):
            return kept
        return self._opened(base64.b64decode(kept[len(PREFIX) :]), place).decode()

    def close_chunk(self, data: bytes, *place: str) -> bytes:
        """The chunk as it is kept."""
        if self._vault is None:
            return data
        return PREFIX.encode() + self._vault.seal_bytes(data, (self._run_id, *place))

    def open_chunk(self, kept: bytes, *place: str) -> bytes:
        """The chunk again. Raises `StepError` DF543, DF544."""
        head = PREFIX.encode()
        return self._opened(kept[len(head) :], place) if kept.startswith(head) else kept

    def digest(self, text: str) -> str:
        """What equal texts have in common; nobody can try values against it without the key."""
        return self._vault.digest(text.encode()) if self._vault else hashlib.sha256(text.encode()).hexdigest()

    def _opened(self, sealed: bytes, place: tuple[str, ...]) -> bytes:
        if self._vault is None:
            fix = "give the keys in dfrun.yaml with which it began"
            raise StepError(Problem("DF544", f"what run {self._run_id} recorded is sealed", None, "", fix))
        return self._vault.open_bytes(sealed, (self._run_id, *place), f"the record of run {self._run_id}")


def is_sealed(kept: str) -> bool:
    """Whether a text is kept sealed; JSON never begins like this."""
    return kept.startswith(PREFIX)


def opened(seals: Seals, kept: str, *place: str) -> str:
    """What is recorded of a run, before the run goes on. Raises `UnreachableError` DF543, DF544."""
    try:
        return seals.open_text(kept, *place)
    except StepError as error:
        raise UnreachableError(error.problem) from None


def text_of(seals: Seals, record: Record) -> str:
    """The output that a record keeps, as text. Raises `UnreachableError`."""
    return opened(seals, record.output or "", record.key.step, record.key.kind, record.key.part)
