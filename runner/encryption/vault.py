"""Keys and sealed values. A value is sealed with AES-256-GCM under a key that is derived for its tenant and model; what
it is bound to (model, field, tenant, row) is authenticated, so that a value that was copied or changed does not open.

A sealed value is: format 1, length of the key's id, the id, 12 random bytes, ciphertext with its tag.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.dialects.types import from_sqlite, to_sqlite
from runner.errors import DefinitionError, Problem, StepError, UnreachableError
from schemas.settings import EncryptionKeys, Key
from schemas.types import ValueType

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORMAT = 1
_NONCE = 12
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Place:
    """What a value is bound to. `field` is its name in messages; `names` are the `table.field` that it has now, then
    those that it had."""

    field: str
    names: tuple[str, ...]
    tenant: str
    row: bytes

    def bound(self, name: str) -> bytes:
        """The associated data: every part with its length before it, so that no two places look alike."""
        return _bound(b"dfrun", *(part.encode() for part in name.split(".")), self.tenant.encode(), self.row)


_KEYS = json.JSONEncoder(ensure_ascii=False, default=str)
_VALUES = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def row_key(values: Sequence[object]) -> bytes:
    """A primary key as a value is bound to it."""
    if len(values) == 1 and type(values[0]) is int:
        return b"[%d]" % values[0]
    return _KEYS.encode(list(values)).encode()


class Vault:
    """The keys of a project, by id."""

    def __init__(self, keys: Mapping[str, bytes], current: str, search: str) -> None:
        self._keys = keys
        self.current = current
        self.search = search

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys at hand."""
        return tuple(self._keys)

    def check_value(self, key_id: str) -> str:
        """What tells whether a key is the one it was, without telling the key."""
        return hmac.digest(self._keys[key_id], b"dfrun key check", "sha256")[:16].hex()

    def prefix(self, key_id: str) -> bytes:
        """How the values begin that are sealed with this key."""
        return bytes((_FORMAT, len(key_id))) + key_id.encode()

    def seal(self, kind: ValueType, value: object, place: Place) -> bytes | None:
        """The sealed value; None stays None."""
        if value is None:
            return None
        return self.column(kind, place, [(place.row, value)])[0]

    def column(self, kind: ValueType, place: Place, values: Sequence[tuple[bytes, object]]) -> list[bytes | None]:
        """Sealed values of one field of many rows, each given with the key of its row. What they share is made once,
        their random bytes are drawn at once."""
        name = place.names[0]
        encrypt = _cipher(self._keys[self.current], _value_purpose(name, place.tenant)).encrypt
        head, bound = self.prefix(self.current), replace(place, row=b"").bound(name)[:-4]
        noise = os.urandom(_NONCE * len(values))
        sealed: list[bytes | None] = []
        for number, (row, value) in enumerate(values):
            if value is None:
                sealed.append(None)
                continue
            nonce = noise[number * _NONCE : (number + 1) * _NONCE]
            data = bound + len(row).to_bytes(4, "big") + row
            sealed.append(head + nonce + encrypt(nonce, _to_bytes(kind, value), data))
        return sealed

    def open(self, kind: ValueType, sealed: bytes | None, place: Place) -> object:
        """The value again. Raises `StepError` DF544 without its key, DF543 when it was changed or belongs elsewhere."""
        if sealed is None:
            return None
        places = ((_value_purpose(name, place.tenant), place.bound(name)) for name in place.names)
        why = "it was changed, or it was sealed for another row, field or tenant"
        return _from_bytes(kind, self._open(sealed, places, f"{place.field}: a value", why))

    def seal_bytes(self, data: bytes, place: Sequence[str]) -> bytes:
        """Sealed bytes of the ledger, bound to where they are kept."""
        return self._seal(data, "ledger", _bound(b"dfrun ledger", *(part.encode() for part in place)))

    def open_bytes(self, sealed: bytes, place: Sequence[str], what: str) -> bytes:
        """The bytes again. Raises `StepError` DF544 without their key, DF543 when they are not what was sealed."""
        bound = _bound(b"dfrun ledger", *(part.encode() for part in place))
        return self._open(sealed, [("ledger", bound)], what, "it was changed, or it was sealed for another place")

    def digest(self, data: bytes) -> str:
        """What equal bytes of the ledger have in common, and nobody without the key can make."""
        return hmac.digest(_derived(self._keys[self.search], "ledger digest"), data, "sha256").hex()

    def _seal(self, plain: bytes, purpose: str, bound: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        sealed = _cipher(self._keys[self.current], purpose).encrypt(nonce, plain, bound)
        return self.prefix(self.current) + nonce + sealed

    def _open(self, sealed: bytes, places: Iterable[tuple[str, bytes]], what: str, why: str) -> bytes:
        """What was sealed for one of `places`, each a purpose and its associated data."""
        head = 2 + (sealed[1] if len(sealed) > 1 else 0)
        key_id = sealed[2:head].decode("ascii", "replace")
        if not sealed or sealed[0] != _FORMAT or len(sealed) < head + _NONCE:
            raise StepError(Problem("DF543", f"{what} cannot be opened", None, why))
        if key_id not in self._keys:
            lacking = f"{what} is sealed with the key {key_id!r}, which is not given"
            raise StepError(Problem("DF544", lacking, None, "", f"add {key_id} to encryption.keys in dfrun.yaml"))
        from cryptography.exceptions import InvalidTag

        for purpose, bound in places:
            try:
                cipher = _cipher(self._keys[key_id], purpose)
                return cipher.decrypt(sealed[head : head + _NONCE], sealed[head + _NONCE :], bound)
            except InvalidTag:
                continue
        raise StepError(Problem("DF543", f"{what} cannot be opened", None, why))

    def index(self, kind: ValueType, value: object, name: str, tenant: str) -> bytes | None:
        """What equal values of one field and tenant have in common, and nobody without the key can make."""
        if value is None:
            return None
        key = _derived(self._keys[self.search], f"index\0{name}\0{tenant}")
        return hmac.digest(key, _to_bytes(kind, value), "sha256")


def key_of(sealed: bytes) -> str:
    """The id of the key that seals a value."""
    return sealed[2 : 2 + sealed[1]].decode("ascii", "replace")


def _bound(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _value_purpose(name: str, tenant: str) -> str:
    return f"value\0{name.partition('.')[0]}\0{tenant}"


@lru_cache(maxsize=1024)
def _cipher(key: bytes, purpose: str) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derived(key, purpose))


@lru_cache(maxsize=1024)
def _derived(key: bytes, purpose: str) -> bytes:
    """A key for one purpose: HKDF with SHA-256 (RFC 5869), one block."""
    extracted = hmac.digest(b"dfrun", key, "sha256")
    return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")


def _to_bytes(kind: ValueType, value: object) -> bytes:
    plain: Any = value.hex() if isinstance(value, bytes) else to_sqlite(kind, value)
    return _VALUES.encode(plain).encode()


def _from_bytes(kind: ValueType, data: bytes) -> object:
    plain = json.loads(data)
    return bytes.fromhex(plain) if kind.kind == "bytes" else from_sqlite(kind, plain)


# --- where keys come from ----------------------------------------------------------------------------------------


def open_vault(declared: EncryptionKeys | None, environment: Mapping[str, str], project: Path) -> Vault:
    """The keys that `dfrun.yaml` names. Raises `DefinitionError` DF460, `UnreachableError` DF461; never shows a key."""
    if declared is None:
        fix = "encryption: {current: k1, keys: {k1: {env: DFRUN_KEY_1}}} in dfrun.yaml"
        raise DefinitionError(Problem("DF460", "a model has encrypted fields, and there is no key", None, "", fix))
    try:
        import cryptography  # noqa: F401
    except ImportError:
        what = "encryption needs the extra 'encryption'"
        raise DefinitionError(Problem("DF424", what, None, "", "pip install 'dfrun[encryption]'")) from None
    keys = {key_id: _read(key_id, key, environment, project) for key_id, key in declared.keys.items()}
    return Vault(keys, declared.current, declared.search or next(iter(keys)))


def _read(key_id: str, key: Key, environment: Mapping[str, str], project: Path) -> bytes:
    source, text = "", None
    if key.env is not None:
        source, text = f"the environment variable {key.env}", environment.get(key.env)
    elif key.file is not None:
        source = f"the file {key.file}"
        try:
            text = (project / key.file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            text = None
    else:
        source = f"the command {key.command[0]}"
        try:
            done = subprocess.run(key.command, capture_output=True, cwd=project, timeout=30, check=False)
            text = done.stdout.decode("ascii") if done.returncode == 0 else None
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            text = None
    if text is None:
        raise UnreachableError(Problem("DF461", f"the key {key_id!r}: {source} gives none"))
    try:
        material = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        material = b""
    if len(material) != _KEY_BYTES:
        fix = "dfrun keys rotate makes one"
        raise UnreachableError(
            Problem("DF461", f"the key {key_id!r}: {source} gives no 32 bytes in base64", None, "", fix)
        )
    return material


def new_key() -> str:
    """A new key as `dfrun.yaml` has its sources give it."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()
