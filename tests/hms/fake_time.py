"""Time that passes only when somebody sleeps, so that no test waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeTime:
    def __init__(self, start: datetime | None = None) -> None:
        self.now_at = start or datetime.now(UTC)
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return self.now_at

    def monotonic(self) -> float:
        return self.now_at.timestamp()

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_at += timedelta(seconds=seconds)
