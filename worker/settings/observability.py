"""Logs and Flower."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from worker.settings.group import SettingsGroup, lower, upper


class ObservabilitySettings(SettingsGroup):
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(upper)] = Field(
        default="INFO",
        description="The least severe events to log: DEBUG, INFO, WARNING or ERROR. Default INFO: a line for each "
        "asset.",
    )
    log_format: Annotated[Literal["console", "json"], BeforeValidator(lower)] = Field(
        default="console",
        description="`console` for people, `json` for a log store: one object per line. Default console.",
    )
    flower_address: str = Field(
        default="127.0.0.1",
        description="The address Flower listens on. Default 127.0.0.1: only this machine. On any other address it "
        "always has a password.",
    )
    flower_port: int = Field(
        default=5555,
        ge=0,
        le=65535,
        description="The port Flower listens on; 0 for any free one. Default 5555, Flower's own.",
    )
    flower_basic_auth: SecretStr | None = Field(
        default=None,
        description="user:password for Flower. Default: none on loopback; elsewhere a password is generated at the "
        "start, and the file that holds it is printed.",
    )

    flower_url_prefix: str | None = Field(
        default=None,
        description="The path under which a reverse proxy shows Flower, such as /flower; the proxy must pass the path "
        "on. Default: none.",
    )

    @field_validator("flower_url_prefix", mode="after")
    @classmethod
    def _flower_url_prefix(cls, value: str | None) -> str | None:
        bare = (value or "").strip("/")
        if bare and not re.fullmatch(r"[\w.~-]+(/[\w.~-]+)*", bare, re.ASCII):
            raise ValueError("is no path such as /flower (letters, digits, - . _ ~ and slashes)")
        return f"/{bare}" if bare else None

    @field_validator("flower_basic_auth", mode="after")
    @classmethod
    def _flower_basic_auth(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[^:\s,]+:[^\s,]+", value.get_secret_value()):
            raise ValueError("is not user:password (no spaces, no commas)")
        return value
