"""Clock, locks, facts and secrets in memory."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from archiver.ledger.memory.state import State, synchronized


class MemoryFacts(State):
    """`ledger.base.Facts`."""

    def now(self) -> datetime:
        return self._clock()

    @synchronized
    def lock(self, name: str, duration: timedelta) -> str | None:
        ends, _ = self._locks.get(name, (None, ""))
        if self._is_ahead(ends, duration):
            return None

        token = secrets.token_hex(8)
        self._locks[name] = (self._clock() + duration, token)
        return token

    @synchronized
    def extend_lock(self, name: str, token: str, duration: timedelta) -> bool:
        ends, held = self._locks.get(name, (None, ""))
        if held != token or not ends or ends <= self._clock():
            return False

        self._locks[name] = (self._clock() + duration, token)
        return True

    @synchronized
    def unlock(self, name: str, token: str) -> None:
        if self._locks.get(name, (None, ""))[1] == token:
            del self._locks[name]

    @synchronized
    def remember(self, name: str, fact: Mapping[str, object], lifetime: timedelta | None = None) -> None:
        ends = None if lifetime is None else self._clock() + lifetime
        self._facts[name] = (ends, json.dumps(dict(fact)))

    @synchronized
    def remember_locked(self, name: str, fact: Mapping[str, object], *, lock: str, token: str) -> bool:
        ends, held = self._locks.get(lock, (None, ""))
        if held != token or not ends or ends <= self._clock():
            return False

        self._facts[name] = (None, json.dumps(dict(fact)))
        return True

    @synchronized
    def recall(self, name: str) -> Mapping[str, object] | None:
        ends, fact = self._facts.get(name, (None, None))
        if fact is None or (ends is not None and ends <= self._clock()):
            return None
        found: Mapping[str, object] = json.loads(fact)
        return found

    @synchronized
    def recall_all(self, prefix: str) -> Mapping[str, Mapping[str, object]]:
        now = self._clock()
        return {
            name: json.loads(fact)
            for name, (ends, fact) in self._facts.items()
            if name.startswith(prefix) and (ends is None or ends > now)
        }

    @synchronized
    def forget(self, name: str) -> None:
        self._facts.pop(name, None)

    @synchronized
    def remember_secret(self, name: str, value: str, lifetime: timedelta) -> None:
        self._secrets[name] = (self._clock() + lifetime, value)

    @synchronized
    def recall_secret(self, name: str) -> str | None:
        ends, value = self._secrets.get(name, (None, None))
        return value if ends and ends > self._clock() else None
