"""Which buckets our own credentials may read for an asset, of what its path says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from storage_backends.errors import BadDestinationUrl
from worker.source_access import SourceAccess


@contextmanager
def access(*allowed: str) -> Iterator[SourceAccess]:
    with closing(SourceAccess(allowed)) as made:
        yield made


def asked(path: str, *allowed: str) -> tuple[str, str] | None:
    with access(*allowed) as made:
        found = made(path)
        return found and (found[0].name, found[1])


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_with_nothing_set_the_bucket_of_the_path_is_tried(scheme: str) -> None:
    assert asked(f"{scheme}://bucket/a b/50%?#.m3u8") == (f"{scheme}://bucket", "a b/50%?#.m3u8")


HOSTILE = [
    "s3://bucket/../x",
    "s3://bucket/a/../../x",
    "s3://bucket//x",
    "s3://bucket/",
    "s3://bucket",
    "s3:///x",
    "s3://key:secret@bucket/x",
    "s3://bucket?endpoint_url=http://169.254.169.254/x",
    "s3://bucket:80/x",
    "s3://../x",
    "file:///etc/passwd",
    "/etc/passwd",
    "./x",
    "memory://bucket/x",
    "https://bucket/x",
    "S3://bucket/x",
    "",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_of_the_api_opens_no_directory_and_nothing_odd(path: str) -> None:
    assert asked(path) is None
    assert asked(path, "s3://another") is None


def test_once_buckets_are_named_no_other_is_read() -> None:
    assert asked("s3://other/x", "s3://bucket") is None
    assert asked("gs://bucket/x", "s3://bucket") is None
    assert asked("s3://bucket/folder-of-another/x", "s3://bucket/folder") is None


def test_the_longest_prefix_wins_and_keys_are_relative_to_it() -> None:
    allowed = ("s3://bucket", "s3://bucket/a/b?endpoint_url=http://127.0.0.1:1", "s3://bucket/a")

    assert asked("s3://bucket/a/b/c.m3u8", *allowed) == ("s3://bucket/a/b (127.0.0.1:1)", "c.m3u8")
    assert asked("s3://bucket/a/c.m3u8", *allowed) == ("s3://bucket/a", "c.m3u8")
    assert asked("s3://bucket/c.m3u8", *allowed) == ("s3://bucket", "c.m3u8")


def test_what_is_named_by_hand_may_be_of_any_scheme(tmp_path: Path) -> None:
    assert asked("memory://kept/a/x", "memory://kept/a") == ("memory://kept/a", "x")
    assert asked(f"file://{tmp_path}/x", f"file://{tmp_path}") == (f"file://{tmp_path}", "x")
    assert asked(f"file://{tmp_path}/../x", f"file://{tmp_path}") is None


def test_a_store_is_opened_once() -> None:
    with access() as made:
        first, second = made("s3://bucket/x"), made("s3://bucket/y")

    assert first is not None
    assert second is not None
    assert first[0] is second[0]


def test_paths_of_ever_more_buckets_do_not_fill_the_memory() -> None:
    with access() as made:
        found = [made(f"s3://bucket-{number}/x") for number in range(20)]
        again = made("s3://bucket-0/y")

    assert [each is not None for each in found] == [True] * 16 + [False] * 4
    assert again is not None


def test_a_url_that_cannot_be_one_is_refused_at_the_start() -> None:
    with pytest.raises(BadDestinationUrl):
        SourceAccess(["s3//bucket"])
