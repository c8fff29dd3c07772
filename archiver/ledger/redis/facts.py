"""Clock, locks, facts and secrets in Redis."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from archiver.ledger.redis.calls import ScriptCalls
from archiver.ledger.redis.values import MICROSECOND, from_microseconds, milliseconds, to_json


class RedisFacts(ScriptCalls):
    """`ledger.base.Facts`."""

    def now(self) -> datetime:
        return from_microseconds(self._run("now"))

    def lock(self, name: str, duration: timedelta) -> str | None:
        token = secrets.token_hex(8)
        return token if self._run("lock", name, token, milliseconds(duration)) else None

    def extend_lock(self, name: str, token: str, duration: timedelta) -> bool:
        return bool(self._run("extend_lock", name, token, milliseconds(duration)))

    def unlock(self, name: str, token: str) -> None:
        self._run("unlock", name, token)

    def remember(self, name: str, fact: Mapping[str, object], lifetime: timedelta | None = None) -> None:
        ends_in = None if lifetime is None else lifetime // MICROSECOND
        self._run("remember", "facts", name, to_json(dict(fact)), ends_in, 0)

    def remember_locked(self, name: str, fact: Mapping[str, object], *, lock: str, token: str) -> bool:
        return bool(self._run("remember_locked", lock, token, name, to_json(dict(fact))))

    def recall(self, name: str) -> Mapping[str, object] | None:
        return self._recall("facts", name).get(name)

    def recall_all(self, prefix: str) -> Mapping[str, Mapping[str, object]]:
        return {name: fact for name, fact in self._recall("facts").items() if name.startswith(prefix)}

    def forget(self, name: str) -> None:
        self._call("forget", lambda: self._redis.hdel(self._key("facts"), name))

    def remember_secret(self, name: str, value: str, lifetime: timedelta) -> None:
        key, sealed = self._key("secret:", name), self._seal.seal(value)
        self._call("remember_secret", lambda: self._redis.set(key, sealed, px=milliseconds(lifetime)))

    def recall_secret(self, name: str) -> str | None:
        sealed = self._call("recall_secret", lambda: self._redis.get(self._key("secret:", name)))
        return self._seal.unseal(str(sealed)) if sealed else None
