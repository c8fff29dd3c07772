"""The contract of options, on each store that has some."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from storage_backends.azure.settings import OPTIONS as AZURE_OPTIONS
from storage_backends.gcs.settings import OPTIONS as GCS_OPTIONS
from storage_backends.s3.settings import OPTIONS as S3_OPTIONS
from tests.contracts.options_contract import Optioned, OptionsContract, Seen
from tests.gcs_by_the_book import gcs_by_the_book
from tests.servers import AzuriteServer, GcsServer, S3Server

LABELS = "room;team=video"
NO_LOCKS = dict.fromkeys(
    [
        "test_a_lock_lasts_for_the_days_of_the_setting_from_when_it_is_asked_for",
        "test_a_record_may_be_locked_as_it_is_stored",
    ],
    "a bucket's own retention policy does that",
)


@contextlib.contextmanager
def optioned_on(server: S3Server) -> Iterator[Optioned]:
    bucket = f"{server.new_bucket()}-locks"
    with contextlib.closing(server.client()) as client:
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)

        def see(key: str) -> Seen:
            head = client.head_object(Bucket=bucket, Key=f"pre/{key}")
            tags = client.get_object_tagging(Bucket=bucket, Key=f"pre/{key}")["TagSet"]
            return Seen(
                head.get("StorageClass", "STANDARD"),
                head["Metadata"],
                {tag["Key"]: tag["Value"] for tag in tags},
                dict(head).get("ObjectLockRetainUntilDate"),  # type: ignore[arg-type]
            )

        options = {"tags": LABELS, "lock_mode": "GOVERNANCE", "lock_days": "30"}
        yield Optioned(
            server.url(bucket, "pre", storage_class="STANDARD_IA", **options),
            server.url(bucket, "pre", storage_class="DEEP_ARCHIVE"),
            warm="STANDARD_IA",
            standard="STANDARD",
            see=see,
            labels_option="tags",
            reads_cold=False,
            part_bytes=5 * 2**20,
            env=server.env,
        )


class TestMoto(OptionsContract):
    @pytest.fixture(scope="class")
    @classmethod
    def optioned(cls, moto_server: S3Server) -> Iterator[Optioned]:
        with optioned_on(moto_server) as optioned:
            yield optioned


class TestMinistack(OptionsContract):
    cannot: ClassVar = {
        "test_media_has_the_class_and_the_labels_of_the_settings[upload]": "it forgets the tags of an upload"
    }

    @pytest.fixture(scope="class")
    @classmethod
    def optioned(cls, ministack_server: S3Server) -> Iterator[Optioned]:
        with optioned_on(ministack_server) as optioned:
            yield optioned


def on_gcs(see: object, **more: object) -> Optioned:
    return Optioned(
        f"gs://bucket/pre?storage_class=NEARLINE&metadata={LABELS}",
        "gs://bucket/pre?storage_class=ARCHIVE",
        warm="NEARLINE",
        standard="STANDARD",
        see=see,  # type: ignore[arg-type]
        labels_option="metadata",
        reads_cold=True,
        part_bytes=2**18,
        **more,  # type: ignore[arg-type]
    )


class TestGcsByTheBook(OptionsContract):
    cannot: ClassVar = NO_LOCKS

    @pytest.fixture(scope="class")
    @classmethod
    def optioned(cls) -> Iterator[Optioned]:
        with gcs_by_the_book() as service:
            service.objects["bucket"] = {}

            def see(key: str) -> Seen:
                resource, _ = service.objects["bucket"][f"pre/{key}"]
                return Seen(resource.get("storageClass", "STANDARD"), resource["metadata"])

            yield on_gcs(see, env={"STORAGE_EMULATOR_HOST": f"http://{service.authority}"})


class TestGcs(OptionsContract):
    cannot: ClassVar = NO_LOCKS | {
        "test_media_has_the_class_and_the_labels_of_the_settings[upload]": "it forgets the class of a session",
    }

    @pytest.fixture(scope="class")
    @classmethod
    def optioned(cls, gcs_server: GcsServer) -> Optioned:
        bucket = gcs_server.new_bucket()

        def see(key: str) -> Seen:
            url = f"{gcs_server.endpoint_url}/storage/v1/b/{bucket}/o/{quote(f'pre/{key}', safe='')}"
            with urlopen(url, timeout=10) as answer:
                resource = json.load(answer)
            return Seen(resource.get("storageClass", "STANDARD"), resource.get("metadata", {}))

        made = on_gcs(see, env=gcs_server.env)
        return Optioned(
            **{
                **{name: getattr(made, name) for name in made.__dataclass_fields__},
                "url": made.url.replace("//bucket/", f"//{bucket}/"),
                "cold_url": made.cold_url.replace("//bucket/", f"//{bucket}/"),
            }
        )


class TestAzure(OptionsContract):
    cannot: ClassVar = dict.fromkeys(NO_LOCKS, "a container's immutability policy does that")

    @pytest.fixture(scope="class")
    @classmethod
    def optioned(cls, azurite_server: AzuriteServer) -> Iterator[Optioned]:
        container = azurite_server.new_bucket()
        with azurite_server.client() as client:

            def see(key: str) -> Seen:
                blob = client.get_blob_client(container, f"pre/{key}").get_blob_properties()
                return Seen(str(blob.blob_tier), blob.metadata)

            yield Optioned(
                azurite_server.url(container, "pre", storage_class="cool", metadata=LABELS),
                azurite_server.url(container, "pre", storage_class="Archive"),
                warm="Cool",
                standard="Hot",
                see=see,
                labels_option="metadata",
                reads_cold=False,
                part_bytes=2**16,
                env=azurite_server.env,
            )


# -- docs ----------------------------------------------------------------------------------------------------
def test_the_table_of_the_docs_has_every_option_of_its_store_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs/storage-backends.md").read_text()
    rows = re.findall(
        r"^\| (`[a-z_`, ]+`) \| ([a-z0-9, ]+) \|",
        text.split("## Options")[1].split("### Locks")[0],
        re.MULTILINE,
    )
    documented: dict[str, set[str]] = {"s3": set(), "gs": set(), "az": set()}
    for names, stores in rows:
        for store in stores.split(", "):
            documented[store] |= set(re.findall("`([a-z_]+)`", names))

    assert documented == {
        "s3": set(S3_OPTIONS),
        "gs": set(GCS_OPTIONS),
        "az": set(AZURE_OPTIONS),
    }
