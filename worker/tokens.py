"""Tokens of the 100ms API from the settings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import SecretStr

from archiver.hms.auth import FixedToken, ManagementToken, TokenProvider
from archiver.hms.errors import HmsUnauthorized
from worker.settings import Settings


def token_provider(settings: Settings) -> TokenProvider:
    if settings.hms_access_key is not None and settings.hms_secret is not None:
        return ManagementToken(settings.hms_access_key, settings.hms_secret)
    if settings.hms_management_token is not None:
        return FixedToken(settings.hms_management_token)
    return NoCredentials()


class NoCredentials:
    """Token provider without 100ms credentials: the first call raises HmsUnauthorized."""

    def token(self, _now: datetime, /) -> SecretStr:
        raise HmsUnauthorized(
            "there are no 100ms credentials: set HMS_ACCESS_KEY and HMS_SECRET (dashboard, Developer section) "
            "in the environment or in .env"
        )

    def replacement(self, _refused: SecretStr, _now: datetime, /) -> None:
        return None


class ReportedTokens:
    """A token provider that reports each refusal."""

    def __init__(self, tokens: TokenProvider, refused: Callable[[], None]) -> None:
        self._tokens = tokens
        self._report = refused

    def token(self, now: datetime, /) -> SecretStr:
        try:
            return self._tokens.token(now)
        except HmsUnauthorized:
            self._report()
            raise

    def replacement(self, refused: SecretStr, now: datetime, /) -> SecretStr | None:
        self._report()
        return self._tokens.replacement(refused, now)
