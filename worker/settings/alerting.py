"""Alerts and the dead-man's switch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from archiver.core.alerts import Channel
from archiver.core.health_rules import Severity
from worker.settings.group import SettingsGroup

_SECOND_URL = re.compile(r",[a-z0-9=]+://", re.IGNORECASE)


def _split_at_spaces(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


SpaceSeparated = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_at_spaces)]


class AlertSettings(SettingsGroup):
    alert_urls: SpaceSeparated = Field(
        default=(),
        description="Where alerts go: URLs of Apprise (slack://..., mailto://..., pagerduty://..., json://host), "
        "separated by spaces. `critical=` in front of one sends it only what is critical; without it, it gets "
        "warnings too. They are secrets. `archiver alerts test` tries each. Default: none, alerts are only logged.",
    )
    alert_digest_hour: int = Field(
        default=8,
        ge=-1,
        le=23,
        description="The hour (UTC) of the daily digest to each channel that gets warnings; -1 for none. Default 8.",
    )
    heartbeat_url: SecretStr | None = Field(
        default=None,
        description="A URL to call after each sweep that ended well (the convention of healthchecks.io: `/start` and "
        "`/fail` are appended), so that somebody else tells you when the archiver itself is gone. Default: none.",
    )

    @property
    def channels(self) -> tuple[tuple[Channel, SecretStr], ...]:
        """Each channel of `alert_urls` with its URL. A name holds the service and the position, never a secret."""
        parsed = [_parse(url) for url in self.alert_urls]
        return tuple(
            (Channel(f"{url.get_secret_value().partition('://')[0]} {number}", lowest), url)
            for number, (lowest, url) in enumerate(parsed, 1)
        )

    @field_validator("alert_urls", mode="after")
    @classmethod
    def _alert_urls(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, url in enumerate(value, 1):
            try:
                _parse(url)
            except ValueError as error:
                raise ValueError(f"number {number} {error}") from None
        return value

    @field_validator("heartbeat_url", mode="after")
    @classmethod
    def _heartbeat_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("is not an http(s) URL")
        return value


def _parse(setting: SecretStr) -> tuple[Severity, SecretStr]:
    """Split `severity=URL`. Raises ValueError without the URL in it."""
    text = setting.get_secret_value()
    before, equals, after = text.partition("=")
    lowest = Severity.WARNING
    if equals and "://" not in before:
        try:
            lowest, text = Severity(before.lower()), after
        except ValueError:
            choices = ", ".join(severity.value for severity in Severity if severity is not Severity.INFO)
            raise ValueError(
                f"begins with an unknown severity; write one of {choices} before the ="
            ) from None
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme.isalnum() or not rest:
        raise ValueError("is not a URL such as slack://... or mailto://...")
    if _SECOND_URL.search(rest):
        raise ValueError("holds a second URL after a comma; write a space between URLs")
    return lowest, SecretStr(text)
