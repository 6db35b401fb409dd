"""Sealing of what must not lie readable in a store: AES-256-GCM under a ring of keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import ConfigurationError
from .identity import Secret

__all__ = ["Keyring", "UnsealError", "context"]

KEY_BYTES = 32
FORMAT = b"\x01"
KEY_ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = len(FORMAT) + KEY_ID_BYTES
MINIMUM_BYTES = HEADER_BYTES + NONCE_BYTES + TAG_BYTES
SECRET_DOMAIN = b"tornado_sse_auth key from a secret"
KEY_ID_DOMAIN = b"tornado_sse_auth key id\x00"


class UnsealError(Exception):
    """A sealed value opens with no key of the ring, or not in this place. Says nothing about its content."""


def context(*parts: str | bytes) -> bytes:
    """Associated data that names the place of a sealed value: field, session id, user id.

    Each part carries its length, so that no two lists of parts give the same bytes.
    """
    data = bytearray()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        data += len(raw).to_bytes(4, "big")
        data += raw
    return bytes(data)


def key_id(key: bytes) -> bytes:
    """The name of a key inside sealed values: a truncated SHA-256 in a domain of its own."""
    return hashlib.sha256(KEY_ID_DOMAIN + key).digest()[:KEY_ID_BYTES]


class Keyring:
    """Keys of 32 bytes, of which the first seals and all open: to rotate, put a new key first and keep the old ones
    until what they sealed is gone or was sealed again.

    A sealed value is format (1 byte), key id (8), nonce (12), ciphertext and tag. Nonces are random: with 2**32 values
    under one key a repetition is still unlikely (NIST SP 800-38D, section 8.3). Raises `ConfigurationError` for a key
    of another length, an all-zero key, a repeated key, and for no key.
    """

    __slots__ = ("_aeads", "_first")

    def __init__(self, keys: Iterable[bytes]) -> None:
        aeads: dict[bytes, AESGCM] = {}
        for position, key in enumerate(keys, start=1):
            if not isinstance(key, bytes) or len(key) != KEY_BYTES:
                raise ConfigurationError(f"encryption key {position} must be {KEY_BYTES} bytes")
            if not any(key):
                raise ConfigurationError(f"encryption key {position} is all zero: use random bytes")
            name = key_id(key)
            if name in aeads:
                raise ConfigurationError(f"encryption key {position} is given twice")
            aeads[name] = AESGCM(key)
        if not aeads:
            raise ConfigurationError("a keyring needs at least one encryption key")
        self._aeads = aeads
        self._first = next(iter(aeads))

    @classmethod
    def from_base64(cls, text: str) -> Keyring:
        """The ring of comma-separated keys in base64 (standard or URL-safe alphabet). Raises `ConfigurationError`."""
        keys = []
        for position, word in enumerate(text.split(","), start=1):
            compact = word.strip().rstrip("=").replace("-", "+").replace("_", "/")
            try:
                keys.append(base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True))
            except binascii.Error:
                # The cause would carry the key into tracebacks with local variables.
                raise ConfigurationError(f"encryption key {position} is not base64") from None
        return cls(keys)

    @classmethod
    def from_secret(cls, secret: Secret) -> Keyring:
        """A ring of one key that `secret`, of 256 random bits or more, gives (HKDF, RFC 5869): what it sealed opens for
        those alone who present the secret."""
        derivation = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=SECRET_DOMAIN)
        return cls([derivation.derive(secret.reveal().encode())])

    @classmethod
    def generate(cls) -> Keyring:
        """A ring of one random key, which nobody else knows: what it sealed is lost with the process."""
        return cls([os.urandom(KEY_BYTES)])

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """Encrypt for the place that `associated` names (see `context`)."""
        header = FORMAT + self._first
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + self._aeads[self._first].encrypt(nonce, plaintext, header + associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """The plaintext of a value that was sealed for the same place. Raises `UnsealError`."""
        name = self.key_id_of(sealed)
        aead = self._aeads.get(name)
        if aead is None:
            raise UnsealError(f"sealed with a key that is not in the ring (key id {name.hex()})")
        nonce = sealed[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
        try:
            return aead.decrypt(nonce, sealed[HEADER_BYTES + NONCE_BYTES :], sealed[:HEADER_BYTES] + associated)
        except InvalidTag:
            raise UnsealError("the sealed value was altered or belongs to another place") from None

    @property
    def sealing_key_id(self) -> bytes:
        """The id of the key that seals: a value with another id should be sealed again when it is next written."""
        return self._first

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """The ids of all keys, in the ring's order: the first seals."""
        return tuple(self._aeads)

    @staticmethod
    def key_id_of(sealed: bytes) -> bytes:
        """The id of the key a value was sealed with. Raises `UnsealError` where it is no sealed value."""
        if not isinstance(sealed, bytes) or len(sealed) < MINIMUM_BYTES or not sealed.startswith(FORMAT):
            raise UnsealError("not a sealed value")
        return sealed[len(FORMAT) : HEADER_BYTES]

    def __repr__(self) -> str:
        return f"Keyring({len(self._aeads)} keys, seals with {self._first.hex()})"
