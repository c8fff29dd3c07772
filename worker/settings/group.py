"""What every group of settings shares: where values come from, and the types that several groups use."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "ARCHIVER_"


class SettingsGroup(BaseSettings):
    """Base of the groups. A field's variable is PREFIX and its name, unless it has an alias."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8-sig",  # with a byte order mark plain UTF-8 would miss the first name
        env_ignore_empty=True,  # `HMS_SECRET=` is a form not filled in, not an empty secret
        extra="ignore",  # `.env` also holds the cloud SDKs' variables; misspelt ones of ours: `load_settings`
        populate_by_name=True,
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        """A pasted key often ends in a line break."""
        return value.strip() if isinstance(value, str) else value


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(item for item in (item.strip() for item in value.split(",")) if item)


def _none_if_empty(value: frozenset[str] | None) -> frozenset[str] | None:
    return value or None  # `,` filters nothing, rather than everything


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Filter = Annotated[frozenset[str] | None, NoDecode, BeforeValidator(_split), AfterValidator(_none_if_empty)]
"""Comma-separated names; None for all."""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
