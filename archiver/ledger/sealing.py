"""Secrets at rest: what the ledger holds is unreadable to who sees the store but not the settings."""

from __future__ import annotations

import base64
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class Seal:
    """Seals and unseals short strings under a key derived from `secret`.

    Every process that shares a ledger needs the same secret, and across restarts: the 100ms app secret will do.
    Where there is none, the caller keeps a random one in a file of its own; a key made up here, per process, would
    make every sealed value worthless to the next process. Another secret later costs open uploads (they start
    again) and sealed facts, nothing else.
    """

    def __init__(self, secret: SecretStr) -> None:
        if not secret.get_secret_value():
            raise ValueError("the secret that seals the ledger is empty")
        self._secret = secret

    @cached_property
    def _fernet(self) -> Fernet:
        """At first use: `archiver status` seals nothing, and need not wait for a library of cryptography."""
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        # `info` keeps this key apart from any other that is ever derived from the same secret
        key = HKDF(SHA256(), length=32, salt=None, info=b"recording-archiver: ledger seal, version 1")
        return Fernet(base64.urlsafe_b64encode(key.derive(self._secret.get_secret_value().encode())))

    def seal(self, value: str) -> str:
        return self._fernet.encrypt(value.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """None when it was sealed under another key, or tampered with."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            return None
