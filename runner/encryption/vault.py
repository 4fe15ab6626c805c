"""Keys and sealed values. A value is sealed with AES-256-GCM under a data key, which `datakeys` keeps wrapped by a key
of the project; what it is bound to (model, field, tenant, row) is authenticated, so that a value that was copied or
changed does not open. What the ledger keeps is sealed under a key that is derived for its run.

A sealed value is: format 2, the id of its data key, 12 random bytes, ciphertext with its tag. A sealed record is:
format 1, length of the key's id, the id, 12 random bytes, ciphertext with its tag. So were values before there were
data keys; they are still read.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
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

_RECORD, _VALUE = 1, 2
_NONCE = 12
_KEY_BYTES = 32
ID_BYTES = 8
_HEAD = 1 + ID_BYTES
VALUES_A_KEY = 2**31
"""How many values one data key may seal: with random nonces, twice as many are the most that is held safe."""


_SPOILT = "it was changed, or it was sealed for another row, field or tenant"


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


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose values a data key seals: those of the table `model` in a tenant or, with `subject`, those of that row of it
    in all tables."""

    tenant: str
    model: str
    subject: str = ""


@dataclass(slots=True)
class DataKey:
    """A data key at hand. `used` is how many values it has sealed, as far as known here."""

    id: bytes
    owner: Owner
    cipher: AESGCM
    used: int = 0


Found = DataKey | str | None
"""What became of a data key: at hand; wrapped by the project's key of this id, which is not given; destroyed."""


class Vault:
    """The keys of a project, by id. `shared` has the data keys of models that this process has met."""

    def __init__(self, keys: Mapping[str, bytes], current: str, search: str, values_a_key: int = VALUES_A_KEY) -> None:
        self._keys = keys
        self.current = current
        self.search = search
        self.values_a_key = values_a_key
        self.shared: dict[Owner, DataKey] = {}
        self.known: dict[bytes, DataKey] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys at hand."""
        return tuple(self._keys)

    def check_value(self, key_id: str) -> str:
        """What tells whether a key is the one it was, without telling the key."""
        return hmac.digest(self._keys[key_id], b"dfrun key check", "sha256")[:16].hex()

    def new_data_key(self, owner: Owner) -> tuple[bytes, bytes]:
        """The id of a new data key, and the key as the database keeps it, under the current key."""
        key_id = os.urandom(ID_BYTES)
        return key_id, self._wrapped(key_id, owner, os.urandom(_KEY_BYTES))

    def data_key(self, key_id: bytes, owner: Owner, project_key: str, wrapped: bytes, used: int) -> Found:
        """The data key that the database keeps. Raises `StepError` DF543 when it was changed or is another's."""
        if project_key not in self._keys:
            return project_key
        return DataKey(key_id, owner, _aes(self._unwrapped(key_id, owner, project_key, wrapped)), used)

    def rewrapped(self, key_id: bytes, owner: Owner, project_key: str, wrapped: bytes) -> bytes:
        """The same data key under the current key."""
        return self._wrapped(key_id, owner, self._unwrapped(key_id, owner, project_key, wrapped))

    def column(
        self, kind: ValueType, place: Place, values: Sequence[tuple[bytes, object]], keys: DataKey | Sequence[DataKey]
    ) -> list[bytes | None]:
        """Sealed values of one field of many rows, each given with the key of its row. keys: one data key for all, or
        one for each. What they share is made once, their random bytes are drawn at once."""
        bound = replace(place, row=b"").bound(place.names[0])[:-4]
        noise = os.urandom(_NONCE * len(values))
        every = [keys] * len(values) if isinstance(keys, DataKey) else keys
        head = bytes((_VALUE,))
        sealed: list[bytes | None] = []
        for number, (row, value) in enumerate(values):
            if value is None:
                sealed.append(None)
                continue
            key, nonce = every[number], noise[number * _NONCE : (number + 1) * _NONCE]
            data = bound + len(row).to_bytes(4, "big") + row
            sealed.append(head + key.id + nonce + key.cipher.encrypt(nonce, _to_bytes(kind, value), data))
        return sealed

    def open(self, kind: ValueType, sealed: bytes | None, place: Place, found: Mapping[bytes, Found]) -> object:
        """The value again; found: the data keys by id. Raises `StepError` DF544 without the key of the project, DF547
        when the data key was destroyed, DF543 when the value was changed or belongs elsewhere."""
        if sealed is None:
            return None
        if sealed[:1] == bytes((_RECORD,)):
            return self._open_direct(kind, sealed, place)
        if (key_id := data_key_of(sealed)) not in found or len(sealed) < _HEAD + _NONCE:
            raise StepError(Problem("DF543", f"{place.field}: a value cannot be opened", None, _SPOILT))
        key = found[key_id]
        if key is None:
            what = f"{place.field}: a value was sealed for a subject that was erased"
            raise StepError(Problem("DF547", what, None, "a subject's data keys are destroyed with it"))
        if isinstance(key, str):
            raise StepError(_lacking(f"{place.field}: a value", key))
        from cryptography.exceptions import InvalidTag

        nonce, rest = sealed[_HEAD : _HEAD + _NONCE], sealed[_HEAD + _NONCE :]
        for name in place.names:
            try:
                return _from_bytes(kind, key.cipher.decrypt(nonce, rest, place.bound(name)))
            except InvalidTag:
                continue
        raise StepError(Problem("DF543", f"{place.field}: a value cannot be opened", None, _SPOILT))

    def direct(self, key_id: str) -> bytes:
        """How values begin that a key of the project sealed itself, before there were data keys."""
        return bytes((_RECORD, len(key_id))) + key_id.encode()

    def _open_direct(self, kind: ValueType, sealed: bytes, place: Place) -> object:
        """A value from before there were data keys; `dfrun keys reencrypt` leaves none."""
        from cryptography.exceptions import InvalidTag

        head = 2 + (sealed[1] if len(sealed) > 1 else 0)
        if len(sealed) >= head + _NONCE:
            if (key_id := key_of(sealed)) not in self._keys:
                raise StepError(_lacking(f"{place.field}: a value", key_id))
            nonce, rest = sealed[head : head + _NONCE], sealed[head + _NONCE :]
            for name in place.names:
                cipher = _cipher(self._keys[key_id], f"value\0{name.partition('.')[0]}\0{place.tenant}")
                try:
                    return _from_bytes(kind, cipher.decrypt(nonce, rest, place.bound(name)))
                except InvalidTag:
                    continue
        raise StepError(Problem("DF543", f"{place.field}: a value cannot be opened", None, _SPOILT))

    def seal_bytes(self, data: bytes, place: Sequence[str]) -> bytes:
        """Sealed bytes of the ledger, bound to where they are kept: to their run first, which has a key of its own."""
        nonce = os.urandom(_NONCE)
        sealed = _cipher(self._keys[self.current], f"ledger\0{place[0]}").encrypt(nonce, data, _bound_record(place))
        return bytes((_RECORD, len(self.current))) + self.current.encode() + nonce + sealed

    def open_bytes(self, sealed: bytes, place: Sequence[str], what: str) -> bytes:
        """The bytes again. Raises `StepError` DF544 without their key, DF543 when they are not what was sealed."""
        from cryptography.exceptions import InvalidTag

        head = 2 + (sealed[1] if len(sealed) > 1 else 0)
        if sealed[:1] == bytes((_RECORD,)) and len(sealed) >= head + _NONCE:
            if (key_id := key_of(sealed)) not in self._keys:
                raise StepError(_lacking(what, key_id))
            for purpose in (f"ledger\0{place[0]}", "ledger"):  # the second one is that of records from before
                cipher = _cipher(self._keys[key_id], purpose)
                try:
                    return cipher.decrypt(sealed[head : head + _NONCE], sealed[head + _NONCE :], _bound_record(place))
                except InvalidTag:
                    continue
        why = "it was changed, or it was sealed for another place"
        raise StepError(Problem("DF543", f"{what} cannot be opened", None, why))

    def digest(self, data: bytes) -> str:
        """What equal bytes of the ledger have in common, and nobody without the key can make."""
        return hmac.digest(_derived(self._keys[self.search], "ledger digest"), data, "sha256").hex()

    def index(self, kind: ValueType, value: object, name: str, tenant: str) -> bytes | None:
        """What equal values of one field and tenant have in common, and nobody without the key can make."""
        if value is None:
            return None
        key = _derived(self._keys[self.search], f"index\0{name}\0{tenant}")
        return hmac.digest(key, _to_bytes(kind, value), "sha256")

    def _wrapped(self, key_id: bytes, owner: Owner, material: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + _cipher(self._keys[self.current], "data keys").encrypt(
            nonce, material, _bound_key(key_id, owner)
        )

    def _unwrapped(self, key_id: bytes, owner: Owner, project_key: str, wrapped: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        cipher = _cipher(self._keys[project_key], "data keys")
        try:
            return cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _bound_key(key_id, owner))
        except InvalidTag:
            why = "it was changed, or it is another's"
            raise StepError(Problem("DF543", "a data key cannot be opened", None, why)) from None


def _lacking(what: str, key_id: str) -> Problem:
    fix = f"add {key_id} to encryption.keys in dfrun.yaml"
    return Problem("DF544", f"{what} is sealed with the key {key_id!r}, which is not given", None, "", fix)


def key_of(sealed: bytes) -> str:
    """The id of the key that seals a record."""
    return sealed[2 : 2 + sealed[1]].decode("ascii", "replace")


def data_key_of(sealed: bytes) -> bytes:
    """The id of the data key that seals a value; no data key's where it is no sealed value."""
    return sealed[1:_HEAD] if sealed[:1] == bytes((_VALUE,)) else b""


def _bound(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _bound_record(place: Sequence[str]) -> bytes:
    return _bound(b"dfrun ledger", *(part.encode() for part in place))


def _bound_key(key_id: bytes, owner: Owner) -> bytes:
    parts = (owner.tenant, owner.model, owner.subject)
    return _bound(b"dfrun data key", key_id, *(part.encode() for part in parts))


@lru_cache(maxsize=1024)
def _cipher(key: bytes, purpose: str) -> AESGCM:
    return _aes(_derived(key, purpose))


def _aes(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


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
