"""Copying: parallelism, memory, part size, timeouts, access to sources."""

from __future__ import annotations

from datetime import timedelta

from pydantic import ByteSize, Field, field_validator

from archiver.transfer.part_sizes import PART_BYTES
from storage_backends.destination_url import parse_destination
from storage_backends.errors import BadDestinationUrl
from worker.settings.group import CommaSeparated, SettingsGroup

_PART = f"{PART_BYTES // 2**20} MiB"


class TransferSettings(SettingsGroup):
    worker_concurrency: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Assets that one worker archives at once, each in a process of its own. Default 2: one large file "
        "does not hold up the small ones, on a machine with 2 cores.",
    )
    transfer_memory_bytes: ByteSize = Field(
        default=ByteSize(256 * 2**20),
        ge=32 * 2**20,
        validation_alias="ARCHIVER_TRANSFER_MEMORY",
        description="Memory budget of one worker process, with a unit (256MiB) or in bytes; "
        "ARCHIVER_WORKER_CONCURRENCY times this in all. Default 256MiB: 110 MiB or more for the process itself, "
        f"which is measured while it copies (on Linux), and the rest for buffers, such as 24 parts of {_PART}; up to a "
        "quarter of the buffers is used to read ahead in a zip. Connections that stream, or read "
        "an object back, hold up to 1 MiB each, out of the memory of the process itself; scrub and verify read 8 MiB "
        "at a time.",
    )
    connections: int = Field(
        default=32,
        ge=1,
        le=256,
        description="The most connections to the source, and to each destination, for one asset. Default 32: a tree of "
        "small segments uses all of them, and a large file as many as its parts fit into the memory budget "
        f"(24 of {_PART}).",
    )
    part_bytes: ByteSize = Field(
        default=ByteSize(PART_BYTES),
        ge=5 * 2**20,  # the least S3 takes
        le=512 * 2**20,
        description="Part size of a multipart upload, with a unit (5MiB) or in bytes; a multiple of 256KiB, at least "
        "5MiB. Very large objects get larger parts automatically. "
        f"Default {PART_BYTES // 2**20}MiB: more parts fit into the memory budget, and each keeps a connection busy.",
    )
    max_unsized_bytes: ByteSize = Field(
        default=ByteSize(2**40),
        ge=2**20,
        validation_alias="ARCHIVER_MAX_UNSIZED",
        description="The most that is read of a file whose server does not announce its length, or that is "
        "decompressed while it is read, with a unit or in bytes; anything longer is not a recording. Default 1TiB: 12 "
        "hours in the highest quality are about 50 GiB.",
    )
    source_timeout_seconds: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="Whole seconds, each with less than 1 KiB received, after which a connection to the source is "
        "closed and the request retried. Default 30.",
    )
    presign_seconds: int = Field(
        default=3600,
        ge=60,
        le=7 * 86400,  # the most S3 signs for
        description="Seconds for which the API is asked to sign a URL; an expired URL is renewed. "
        "Default 3600, as 100ms's own SDK asks.",
    )
    source_access: CommaSeparated = Field(
        default=(),
        description="Buckets that VODs may be read from with our own credentials, separated by commas, such as "
        "s3://customer-bucket/prefix?endpoint_url=...: for VODs of which 100ms signs only the playlist. Never written "
        "to; if given, no other bucket is read. Default: none, the bucket in such an asset's path is tried.",
    )

    @property
    def source_timeout(self) -> timedelta:
        return timedelta(seconds=self.source_timeout_seconds)

    @property
    def presign(self) -> timedelta:
        return timedelta(seconds=self.presign_seconds)

    @field_validator("part_bytes", mode="after")
    @classmethod
    def _part_bytes(cls, value: ByteSize) -> ByteSize:
        if value % (256 * 2**10):
            raise ValueError("is no multiple of 256KiB, as Google Cloud Storage wants it")
        return value

    @field_validator("source_access", mode="after")
    @classmethod
    def _source_access(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                parse_destination(text)
            except BadDestinationUrl as error:
                raise ValueError(str(error).replace("destination ", "bucket ", 1)) from None
        return value
