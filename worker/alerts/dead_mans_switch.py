"""Ping a dead man's switch after each sweep, so that silence is noticed too (the convention of healthchecks.io)."""

from __future__ import annotations

from pathlib import Path

import httpx
import structlog
from pydantic import SecretStr

from archiver.http import trust

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 10
"""For the whole call, which comes between sweeps: nothing waits for it but the next one."""


class DeadMansSwitch:
    """Never raises: a sweep is worth more than a call. Does nothing without a URL."""

    def __init__(self, url: SecretStr | None, authorities: Path) -> None:
        self._url = url
        self._authorities = authorities

    def start(self) -> None:
        """A sweep begins."""
        self._call("/start")

    def success(self) -> None:
        """A sweep ended well, and what copies is alive."""
        self._call("")

    def fail(self) -> None:
        """A sweep failed, or nothing copies what it found."""
        self._call("/fail")

    def test(self) -> str | None:
        """Call it once, as after a sweep that ended well. Return why that failed, without the URL."""
        failure = self._get("")
        if "status" in failure:
            return f"the service answered {failure['status']}"
        return f"the service cannot be reached: {failure['error']}" if failure else None

    def _call(self, suffix: str) -> None:
        if failure := self._get(suffix):
            log.warning("heartbeat_failed", signal=suffix or "success", **failure)

    def _get(self, suffix: str) -> dict[str, object]:
        """Return what went wrong, in fields of a log event; none when nothing did."""
        if self._url is None:
            return {}
        try:
            url = httpx.URL(self._url.get_secret_value())
            answer = httpx.get(
                url.copy_with(path=url.path.rstrip("/") + suffix),
                timeout=TIMEOUT_SECONDS,
                verify=trust.context(self._authorities),
            )
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            return {"status": error.response.status_code}
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # its text may name the URL
            return {"error": type(error).__name__}
        return {}
