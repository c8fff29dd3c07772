"""Where assets are archived, and in which form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field, field_validator, model_validator

from archiver.core.records.keys import DEFAULT_TEMPLATE, check_template
from storage_backends.destination_url import is_plain_path, parse_destination
from storage_backends.errors import BadDestinationUrl
from worker.settings.destinations_file import destinations_in
from worker.settings.group import CommaSeparated, SettingsGroup, lower


class VodZip(StrEnum):
    """How to store a VOD that 100ms delivers as a zip."""

    UNPACK = "unpack"
    KEEP = "keep"
    BOTH = "both"


class DestinationSettings(SettingsGroup):
    destinations: CommaSeparated = Field(
        default=("./archive",),
        validate_default=True,
        description="One or more URLs separated by commas, such as s3://bucket/prefix?endpoint_url=...&region=..., "
        "gs://bucket/prefix, az://account/container/prefix, file:///srv/archive, ./archive. An asset is archived when "
        "every destination has it whole. Write a comma inside a URL as %2C. Credentials do not belong "
        "here: the cloud SDKs find them themselves (AWS_*, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_*, profiles, "
        "roles of the machine). Default ./archive, for a first try.",
    )
    quorum: int | None = Field(
        default=None,
        ge=1,
        description="How many destinations must hold an asset whole before it is archived. The others get it from "
        "these afterwards (`archiver replicate`), and `archiver status` is healthy only once all hold it. Default: "
        "all of them.",
    )
    replicate_bytes_a_day: ByteSize | None = Field(
        default=None,
        ge=2**20,
        validation_alias="ARCHIVER_REPLICATE_BYTES",
        description="The most that is replicated by itself in a day, with a unit (500GiB) or in bytes: what one "
        "destination lacks or has damaged, from one that has it whole, after each reconcile. `archiver replicate` has "
        "no such limit. Default: none.",
    )
    destinations_file: Path | None = Field(
        default=None,
        description="A TOML file with the destinations and their options, instead of ARCHIVER_DESTINATIONS: one "
        "[[destination]] with `url = ...` for each, and options by their names in docs/storage-backends.md. Default "
        "none.",
    )
    key_template: str = Field(
        default=DEFAULT_TEMPLATE,
        description="The folder of an asset at a destination. Fields, each a whole path segment: {room_id}, "
        "{session_id}, {type}, {asset_id} (required), {job_id}, {yyyy}, {mm}, {dd}. Changing it later moves nothing "
        f"that is archived. Default {DEFAULT_TEMPLATE}.",
    )
    vod_zip: Annotated[VodZip, BeforeValidator(lower)] = Field(
        default=VodZip.UNPACK,
        description="How to store a VOD that is delivered as a zip: `unpack` (its files, so that it plays), `keep` "
        "(the zip), `both`. Default unpack.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, given: Any) -> Any:
        path = given.get("destinations_file") if isinstance(given, dict) else None
        if not path:
            return given
        if given.get("destinations"):
            raise ValueError(
                "ARCHIVER_DESTINATIONS_FILE: ARCHIVER_DESTINATIONS is set too; keep one of them, with all "
                "destinations"
            )
        try:
            return {**given, "destinations": destinations_in(Path(str(path).strip()).expanduser())}
        except ValueError as error:
            raise ValueError(f"ARCHIVER_DESTINATIONS_FILE: {error}") from None

    @field_validator("destinations", mode="after")
    @classmethod
    def _destinations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("names no destination")
        names = []
        for text in value:
            try:
                names.append(parse_destination(text).name)
            except BadDestinationUrl as error:
                raise ValueError(str(error)) from None
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {twice[0]} twice")
        # absolute, so that it is the same directory in every process
        return tuple(
            str(Path(text).expanduser().resolve()) if is_plain_path(text) else text for text in value
        )

    @field_validator("key_template", mode="after")
    @classmethod
    def _key_template(cls, value: str) -> str:
        check_template(value)
        return value
