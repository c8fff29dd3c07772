"""Signed monthly statements."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from worker.settings.group import SettingsGroup


class StatementSettings(SettingsGroup):
    statement_key: SecretStr | None = Field(
        default=None,
        description="The key that signs the monthly statements (docs/proof.md), as `archiver statement new-key` prints "
        "it. It is never made by itself: keep a copy, and give the public key to whoever is to verify. No default: no "
        "statements.",
    )
    statement_tsa_url: SecretStr | None = Field(
        default=None,
        description="A Time Stamping Authority (RFC 3161) that is asked for a time stamp of each statement; it sees a "
        "SHA-256. No default: no time stamps.",
    )

    @field_validator("statement_key", mode="after")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            from archiver.core.records.statements import SigningKey  # not needed without a key

            SigningKey(value.get_secret_value())
        return value

    @field_validator("statement_tsa_url", mode="after")
    @classmethod
    def _url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("must be an address such as https://tsa.example.com")
        return value
