"""Encrypt secrets in the ledger: unreadable in the store without the settings."""

from __future__ import annotations

import base64
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class Seal:
    """Encrypts and decrypts short strings (Fernet) under a key derived from `secret` (HKDF, RFC 5869).

    All processes that share a ledger need the same secret, across restarts too: the 100ms app secret, or else a random
    one that the caller keeps in a file. Changing it loses open uploads (they restart) and sealed facts, nothing else.
    """

    def __init__(self, secret: SecretStr) -> None:
        if not secret.get_secret_value():
            raise ValueError("the secret that seals the ledger is empty")
        self._secret = secret

    @cached_property
    def _fernet(self) -> Fernet:
        """Made at first use: importing cryptography is slow, and `archiver status` seals nothing."""
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        # `info` separates this key from any other derived from the same secret
        key = HKDF(SHA256(), length=32, salt=None, info=b"recording-archiver: ledger seal, version 1")
        return Fernet(base64.urlsafe_b64encode(key.derive(self._secret.get_secret_value().encode())))

    def seal(self, value: str) -> str:
        return self._fernet.encrypt(value.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """Decrypt a value; None when it was encrypted under another key, or tampered with."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            return None
