"""Lists of several pages are read to the end. A page of any of these servers holds at most 1,000 entries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from storage_backends.base import ObjectSpec, StorageBackend, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.gcs import GcsBackend
from storage_backends.registry import open_destination
from tests.contracts.storage_contract import abort_stale_uploads
from tests.fault_proxy import Answer, Call, fault_proxy
from tests.servers import AzuriteServer, GcsServer, S3Server

OBJECTS = 2500
MORE_THAN_A_PAGE = 1100


@contextlib.contextmanager
def opened(
    server: S3Server | GcsServer | AzuriteServer, patch: pytest.MonkeyPatch
) -> Iterator[StorageBackend]:
    for name, value in server.env.items():
        patch.setenv(name, value)
    with contextlib.closing(open_destination(server.url(server.new_bucket(), "pre/fix"))) as store:
        yield store


def put(store: StorageBackend, name: str) -> None:
    store.put(ObjectSpec(object_key(name), "text/plain", 1), b"x", crc32c_of(b"x"))


@pytest.mark.parametrize("server", ["ministack_server", "gcs_server", "azurite_server"])
def test_a_list_of_many_pages_names_every_object_once(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"tree/{number:05}.ts" for number in range(OBJECTS)]
    with opened(request.getfixturevalue(server), monkeypatch) as store:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: put(store, name), names))

        listed = sorted(info.key for info in store.list("tree/"))

    assert listed == names


def test_an_upload_of_more_parts_than_a_page_holds_is_resumed_with_all_of_them(
    ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ObjectSpec(object_key("long.mp4"), "video/mp4", None, 1)
    numbers = range(1, MORE_THAN_A_PAGE + 1)
    with opened(ministack_server, monkeypatch) as store:
        upload = store.begin(spec)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: upload.put_part(number, b"x", crc32c_of(b"x")), numbers))

        held = store.resume(spec, upload.token).parts()
        upload.abort()

    assert held is not None
    assert sorted(held) == list(numbers)


def test_stale_uploads_beyond_the_first_page_are_aborted(
    ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one key and of several: a page may end within a key."""
    with opened(ministack_server, monkeypatch) as store:
        specs = [
            ObjectSpec(object_key(f"{number % 3}.mp4"), "video/mp4", None, 2**23)
            for number in range(MORE_THAN_A_PAGE)
        ]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(store.begin, specs))

        aborted = abort_stale_uploads(store, timedelta(hours=-1))

        assert aborted == MORE_THAN_A_PAGE
        assert abort_stale_uploads(store, timedelta(hours=-1)) == 0


def test_a_page_of_gcs_that_fails_is_retried_and_is_not_the_last(
    gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error the library's own iterator ends as if there were no more."""
    bucket = gcs_server.new_bucket()
    with fault_proxy(int(gcs_server.endpoint_url.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setattr("storage_backends.gcs.backend._PAGE", 2)
        with contextlib.closing(GcsBackend(bucket, sleep=lambda _: None)) as store:
            for number in range(5):
                put(store, f"{number}.ts")

            def is_a_later_page(call: Call) -> bool:
                return "pageToken=" in call.path

            proxy.answer(is_a_later_page, Answer(503), times=2)

            listed = sorted(info.key for info in store.list())

    assert listed == [f"{number}.ts" for number in range(5)]
