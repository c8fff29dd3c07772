"""`archiver serve`: health, webhooks and metrics over HTTP."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator

from worker.settings.group import SettingsGroup


class ServeSettings(SettingsGroup):
    serve_address: str = Field(
        default="127.0.0.1",
        description="The address `archiver serve` listens on for /healthz, /readyz and /webhooks/100ms. Default "
        "127.0.0.1: only this machine, such as a reverse proxy with TLS.",
    )
    serve_port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        description="The port `archiver serve` listens on; 0 for any free one. Default 8080.",
    )
    metrics_address: str = Field(
        default="127.0.0.1",
        description="The address /metrics is served on, by a listener of its own, without a password. Default "
        "127.0.0.1: only this machine.",
    )
    metrics_port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="The port /metrics is served on; 0 for any free one. Default 9464, as OpenTelemetry's exporters.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="The secret that 100ms sends with each webhook: what the dashboard calls the value of a custom "
        "header. Default: none, and every webhook is refused.",
    )
    webhook_header: str = Field(
        default="X-Archiver-Secret",
        description="The name of that header, as configured at 100ms. Default X-Archiver-Secret.",
    )

    @field_validator("webhook_secret", mode="after")
    @classmethod
    def _webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{16,512}", value.get_secret_value()):
            raise ValueError(
                "must be 16 to 512 visible ASCII characters; make one with: openssl rand -hex 32"
            )
        return value

    @field_validator("webhook_header", mode="after")
    @classmethod
    def _webhook_header(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):  # RFC 9110, section 5.1
            raise ValueError("is not the name of an HTTP header, such as X-Archiver-Secret")
        return value
