"""The state of the archiver itself: broker, ledger, local files."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from worker.settings.group import SettingsGroup


class StateSettings(SettingsGroup):
    redis_url: SecretStr | None = Field(
        default=None,
        description="Broker and ledger: redis://[:password@]host:6379/0, or rediss:// for TLS. Redis 7 or Valkey, "
        "append-only, maxmemory-policy noeviction. Default: unset, an embedded Valkey in "
        "ARCHIVER_STATE_DIR.",
    )
    redis_prefix: str = Field(
        default="archiver",
        description="What every key of the ledger and the queues begins with, before a colon: another one for each "
        "installation that shares a Redis database. Letters, digits and . _ - { }. A changed one is an empty ledger. "
        "Default archiver.",
    )
    state_dir: Path = Field(
        default=Path(".archiver"),
        validate_default=True,
        description="Directory for the embedded Valkey's data, locks and logs. If it is lost, it is rebuilt from the "
        "API and the destinations. Default ./.archiver.",
    )

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = urlsplit(value.get_secret_value())
            good = url.scheme in ("redis", "rediss") and bool(url.hostname) and url.port != 0
        except ValueError:
            good = False
        if not good or not re.fullmatch(r"(/\d*)?", url.path):
            raise ValueError(
                "is no Redis URL: redis://[:password@]host:6379/0, or rediss:// for TLS; in the password write "
                "%40 for @, %2F for /, %23 for #, %3F for ?"
            )
        return value

    @field_validator("redis_prefix", mode="after")
    @classmethod
    def _redis_prefix(cls, value: str) -> str:
        # no colon: one prefix would hold the other's keys
        if not re.fullmatch(r"[A-Za-z0-9._{}-]{1,60}", value):
            raise ValueError("is no prefix of keys: up to 60 letters, digits and . _ - { }, without a colon")
        return value

    @property
    def redis_key_prefix(self) -> str:
        return f"{self.redis_prefix}:"

    @field_validator("state_dir", mode="after")
    @classmethod
    def _state_dir(cls, value: Path) -> Path:
        return value.expanduser().resolve()  # the same directory in every process
