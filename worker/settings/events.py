"""Events for the team's own systems."""

from __future__ import annotations

import base64
import binascii

from pydantic import Field, SecretStr, field_validator

from worker.settings.group import SettingsGroup


class EventSettings(SettingsGroup):
    event_url: SecretStr | None = Field(
        default=None,
        description="The URL to POST an event to when an asset becomes archived, quarantined, lost or damaged, signed "
        "as standard-webhooks say. It is a secret. What was archived before is sent by `archiver events replay`. "
        "Default: none.",
    )
    event_secret: SecretStr | None = Field(
        default=None,
        description="The key that events are signed with: `whsec_` and at least 24 random bytes in base64. The "
        "receiver needs it too. Make one: echo whsec_$(openssl rand -base64 32). Default: none; required with "
        "ARCHIVER_EVENT_URL.",
    )

    @field_validator("event_url", mode="after")
    @classmethod
    def _event_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("is not an http(s) URL")
        return value

    @field_validator("event_secret", mode="after")
    @classmethod
    def _event_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            key = base64.b64decode(value.get_secret_value().removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not whsec_ and base64") from None
        if len(key) < 24:
            raise ValueError("holds fewer than 24 bytes")
        return value
