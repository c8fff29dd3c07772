"""The 100ms account."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from archiver.hms.base import DEFAULT_API_URL
from worker.settings.group import SettingsGroup


class AccountSettings(SettingsGroup):
    hms_access_key: str | None = Field(
        default=None,
        validation_alias="HMS_ACCESS_KEY",
        repr=False,
        description="The app access key of the 100ms workspace (dashboard, Developer section). No default.",
    )
    hms_secret: SecretStr | None = Field(
        default=None,
        validation_alias="HMS_SECRET",
        description="The app secret of HMS_ACCESS_KEY. It signs management tokens, which are valid for 24 hours and "
        "renewed automatically. No default.",
    )
    hms_management_token: SecretStr | None = Field(
        default=None,
        validation_alias="HMS_MANAGEMENT_TOKEN",
        description="A ready-made management token instead of the two above. It cannot be renewed, so use it for "
        "trials only. No default.",
    )
    hms_api_url: str = Field(
        default=DEFAULT_API_URL,
        validation_alias="HMS_API_URL",
        description="The 100ms API, with its /v2. https, except on loopback or with ARCHIVER_ALLOW_PRIVATE_SOURCES. "
        f"Default {DEFAULT_API_URL}.",
    )

    @property
    def has_credentials(self) -> bool:
        """Return whether there are credentials for the 100ms API."""
        return self.hms_secret is not None or self.hms_management_token is not None

    @field_validator("hms_access_key", "hms_secret", "hms_management_token", mode="after")
    @classmethod
    def _one_word(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is not None and (not text.isascii() or not text.isprintable() or " " in text):
            raise ValueError("holds a space, a line break or a letter that is not ASCII; copy it again")
        return value

    @field_validator("hms_api_url", mode="after")
    @classmethod
    def _api_url(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            good = False
        if not good or "@" in url.netloc or "?" in value or "#" in value or any(c.isspace() for c in value):
            raise ValueError("is no plain http(s) URL: no user, no query; example " + DEFAULT_API_URL)
        return value.rstrip("/")
