"""TLS trust and allowed addresses."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from archiver.http import trust
from worker.settings.group import PREFIX, SettingsGroup


class NetworkSettings(SettingsGroup):
    ca_file: Path | None = Field(
        default=None,
        description="A PEM file of certificate authorities to trust in addition to the system's, for everything: the "
        "100ms API, sources, destinations, Redis. For a company's own authority, a proxy that inspects TLS, or a "
        "self-signed certificate. Default: what SSL_CERT_FILE names, if it is set.",
    )
    allow_private_sources: bool = Field(
        default=False,
        description="Whether URLs that the API itself returns may be http, or lead to loopback and private addresses: "
        "for the simulator and for tests. Redirects and playlists that lead to another private host stay forbidden. "
        "Default false.",
    )

    @field_validator("ca_file", mode="after")
    @classmethod
    def _ca_file(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser().absolute()  # not resolved: what a link leads to may be replaced
        try:
            trust.CaFile(f"{PREFIX}CA_FILE", path).certificates()
        except trust.UnusableCaFile as error:
            raise ValueError(error.what) from None
        return path
