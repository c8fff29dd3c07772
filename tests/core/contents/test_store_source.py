"""A VOD whose URL signs its master alone (form 3), with and without credentials for the bucket of its path."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

import pytest

from archiver.core.contents.hls.store_source import SourceStore, no_source_store, tree_access
from archiver.core.contents.hls.tree import HlsContents
from archiver.core.errors import NeedsSourceAccess
from archiver.transfer.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
)
from archiver.transfer.http import HttpClient
from archiver.transfer.source import as_sent, plain
from archiver.transfer.store_source import StoreSource
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumRejected,
    InvalidKey,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)
from storage_backends.memory import MemoryBackend
from tests.core.contents.media import tree
from tests.core.contents.origin import Answer, Copy, Origin, Request, copy, read_source, signed

MIB = 1024 * 1024
TS = b"G" + bytes(187)
SIGNATURE = "X-Amz-Signature=abc&X-Amz-Credential=k"
FOLDER = "hms/hls/room 1/50%+ä"  # each of them a trap for who confuses keys and URLs


def put(store: MemoryBackend, key: str, data: bytes) -> None:
    spec = ObjectSpec(object_key(key), "application/octet-stream")
    store.put(spec, data, crc32c_of(data))


class Refusing(MemoryBackend):
    """Refuses to look at and to read what `refused` names, with that error."""

    refused: Mapping[str, StorageError] = {}

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self._refuse(key)
        return super().stat(key)

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        self._refuse(key)
        return super().read(key, start, length_bytes, if_match=if_match)

    def _refuse(self, key: str) -> None:
        if key in self.refused:
            raise self.refused[key]


class Form3:
    """A tree in a bucket, of which `origin` gives out the master alone."""

    def __init__(self, origin: Origin, files: Mapping[str, bytes], master: str = "master.m3u8") -> None:
        self.origin = origin
        self.files = dict(files)
        self.store = Refusing("customer")
        for path, body in files.items():
            put(self.store, f"{FOLDER}/{path}", body)
        self.key = object_key(f"{FOLDER}/{master}")
        self.path = f"s3://customer/{self.key}"
        self.url = f"{origin.url}/customer/{quote(self.key)}?{SIGNATURE}"
        origin.files = {f"/customer/{self.key}": files[master]}
        origin.rule = self._only_the_master

    def _only_the_master(self, request: Request) -> Answer | None:
        return None if request.path == f"/customer/{self.key}" and request.query else Answer(403)

    def readable(self, path: str) -> tuple[StorageBackend, ObjectKey] | None:
        assert path == self.path
        return self.store, self.key

    def contents(self, client: HttpClient, source_store: SourceStore | None = None) -> HlsContents:
        access = tree_access(self.path, source_store or self.readable)
        return HlsContents(client, signed(self.url), sleep=lambda _: None, open_access=access)

    def copied(self, client: HttpClient, source_store: SourceStore | None = None) -> Copy:
        return copy(self.contents(client, source_store))


@pytest.mark.parametrize("name", ["vod-ts", "vod-fmp4"])
def test_with_credentials_the_whole_tree_is_read_from_its_bucket(
    client: HttpClient, origin: Origin, name: str
) -> None:
    form3 = Form3(origin, tree(name))

    made = form3.copied(client)

    assert made.files == form3.files
    assert all(item.rewritten is None for item in made.items.values())
    assert {request.path for request in origin.requests} == {f"/customer/{form3.key}"}


def test_without_credentials_it_needs_source_access(client: HttpClient, origin: Origin) -> None:
    form3 = Form3(origin, tree("vod-ts"))

    with pytest.raises(NeedsSourceAccess, match="ARCHIVER_SOURCE_ACCESS"):
        form3.copied(client, no_source_store)


@pytest.mark.parametrize("error", [AccessDenied("no"), BucketMissing("no"), TransientStorageError("no")])
def test_an_unreadable_bucket_counts_as_none(client: HttpClient, origin: Origin, error: StorageError) -> None:
    form3 = Form3(origin, tree("vod-ts"))
    form3.store.refused = {form3.key: error}

    with pytest.raises(NeedsSourceAccess):
        form3.copied(client)


@pytest.mark.parametrize("body", [None, b"", b"<html>not it</html>"])
def test_where_the_path_holds_no_playlist_nothing_is_read_from_the_bucket(
    client: HttpClient, origin: Origin, body: bytes | None
) -> None:
    form3 = Form3(origin, tree("vod-ts"))
    form3.store.delete(form3.key)
    if body is not None:
        put(form3.store, form3.key, body)

    with pytest.raises(NeedsSourceAccess):
        form3.copied(client)


def test_a_path_that_is_another_object_than_the_url_signs_is_not_believed(
    client: HttpClient, origin: Origin
) -> None:
    form3 = Form3(origin, tree("vod-ts"))
    other = object_key("private/other.m3u8")
    put(form3.store, other, b"#EXTM3U\n")

    with pytest.raises(NeedsSourceAccess):
        form3.copied(client, lambda _: (form3.store, other))


def test_a_master_that_may_be_read_alone_there_too_needs_source_access(
    client: HttpClient, origin: Origin
) -> None:
    form3 = Form3(origin, {"master.m3u8": _segments("a.ts"), "a.ts": TS})
    form3.store.refused = {f"{FOLDER}/a.ts": AccessDenied("no")}

    with pytest.raises(NeedsSourceAccess):
        form3.copied(client)


def test_a_url_that_does_not_sign_one_object_never_asks_for_a_bucket(
    client: HttpClient, origin: Origin
) -> None:
    form3 = Form3(origin, tree("vod-ts"))
    origin.files = {f"/customer/{FOLDER}/{path}": body for path, body in form3.files.items()}
    origin.rule = lambda _: None
    form3.url = form3.url.partition("?")[0]

    def asked(path: str) -> None:
        raise AssertionError(path)

    assert form3.copied(client, asked).files == form3.files


def test_a_missing_segment_is_gone_and_the_tree_not_whole(client: HttpClient, origin: Origin) -> None:
    form3 = Form3(origin, {"master.m3u8": _segments("a.ts", "b.ts"), "a.ts": TS})

    with pytest.raises(SourceGone, match=r"memory://customer: .*/b.ts is not there"):
        form3.copied(client)


def test_a_missing_playlist_is_a_doubt_and_the_rest_is_read(client: HttpClient, origin: Origin) -> None:
    files = tree("vod-ts")
    form3 = Form3(origin, files)
    form3.store.delete(object_key(f"{FOLDER}/stream_1/stream.m3u8"))
    contents = form3.contents(client)

    made = copy(contents)

    assert [doubt.path for doubt in contents.notes.doubts if doubt.missing] == ["stream_1/stream.m3u8"]
    assert made.files.keys() == {path for path in files if not path.startswith("stream_1/")}


def test_names_with_awkward_letters_are_found_under_the_keys_that_they_mean(
    client: HttpClient, origin: Origin
) -> None:
    form3 = Form3(origin, {"master.m3u8": _segments("a%20b.ts", "c%2Bd+e.ts", "100%25.ts", "%C3%BC.ts")})
    bodies = [b"G" + bytes([number]) * 187 for number in range(4)]
    for name, body in zip(("a b.ts", "c+d+e.ts", "100%.ts", "ü.ts"), bodies, strict=True):
        put(form3.store, f"{FOLDER}/{name}", body)

    made = form3.copied(client)

    assert [body for path, body in made.files.items() if path.endswith(".ts")] == bodies


def test_a_reference_out_of_the_folder_is_read_from_the_bucket_all_the_same(
    client: HttpClient, origin: Origin
) -> None:
    form3 = Form3(origin, {"master.m3u8": _segments("../shared/a.ts")})
    put(form3.store, f"{FOLDER.rpartition('/')[0]}/shared/a.ts", TS)

    assert TS in form3.copied(client).files.values()


@pytest.mark.parametrize("uri", ["%2e%2e%2f%2e%2e%2fsecret.ts", "x/%2e%2e%2fa.ts", "a%00.ts"])
def test_a_reference_that_is_no_good_key_is_refused(client: HttpClient, origin: Origin, uri: str) -> None:
    form3 = Form3(origin, {"master.m3u8": _segments(uri), "a.ts": TS})

    with pytest.raises(SourceNotAllowed):
        form3.copied(client)


def test_another_host_is_asked_over_http_as_ever(
    client: HttpClient, origin: Origin, elsewhere: Origin
) -> None:
    elsewhere.files = {"/customer/secret.ts": TS}
    form3 = Form3(
        origin, {"master.m3u8": _segments("a.ts", f"{elsewhere.url}/customer/secret.ts"), "a.ts": TS}
    )
    put(form3.store, "secret.ts", TS)

    with pytest.raises(SourceNotAllowed, match=elsewhere.url):  # as any private host that a playlist names
        form3.copied(client)


def test_what_carries_a_signature_of_its_own_is_fetched_with_it(client: HttpClient, origin: Origin) -> None:
    form3 = Form3(origin, {"master.m3u8": _segments(f"a.ts?{SIGNATURE}")})
    origin.files[f"/customer/{FOLDER}/a.ts"] = TS
    origin.rule = lambda request: None if request.query else Answer(403)

    assert TS in form3.copied(client).files.values()


def test_a_playlist_stored_packed_is_read_plain(client: HttpClient, origin: Origin) -> None:
    form3 = Form3(origin, tree("vod-ts"))
    packed = "stream_0/stream.m3u8"
    put(form3.store, f"{FOLDER}/{packed}", gzip.compress(form3.files[packed]))

    assert form3.copied(client).files == form3.files


@pytest.mark.parametrize(
    "body",
    [b"\x1f\x8bnot gzip", gzip.compress(b"#EXTM3U\n")[:-9], gzip.compress(bytes(65 * MIB))],
    ids=["no gzip", "cut short", "a bomb"],  # the bytes hold the time
)
def test_a_playlist_packed_badly_is_refused(client: HttpClient, origin: Origin, body: bytes) -> None:
    form3 = Form3(origin, tree("vod-ts"))
    put(form3.store, f"{FOLDER}/stream_0/stream.m3u8", body)

    with pytest.raises(SourceMismatch):
        form3.copied(client)


# -- one object ----------------------------------------------------------------------------------------------
class Counting(MemoryBackend):
    """Remembers how much each read asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lengths: list[int | None] = []
        self.after: Mapping[int, bytes] = {}  # what is put in place of `x` after so many reads

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        data = super().read(key, start, length_bytes, if_match=if_match)
        self.lengths.append(length_bytes)
        if (other := self.after.get(len(self.lengths))) is not None:
            put(self, "x", other)
        return data


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, MIB, 3 * MIB + 1])
def test_an_object_is_read_whole_in_requests_of_bounded_size(size: int) -> None:
    store, body = Counting("one"), bytes(range(256)) * (size // 256 + 1)
    put(store, "x", body[:size])

    assert read_source(StoreSource(store, object_key("x"))) == body[:size]
    assert all(length is not None and length <= MIB for length in store.lengths)


def test_ranges_of_an_object_cost_no_look_at_it_besides() -> None:
    class Counted(MemoryBackend):
        looks = 0

        def stat(self, key: ObjectKey) -> ObjectInfo | None:
            self.looks += 1
            return super().stat(key)

    store = Counted("one")
    put(store, "x", bytes(3 * MIB))
    source = StoreSource(store, object_key("x"))

    info, _ = source.open(1)
    source.read_range(0, memoryview(bytearray(2 * MIB)), info)
    source.read_range(2 * MIB, memoryview(bytearray(MIB)), info)

    assert store.looks == 1


def test_an_object_of_a_store_without_versions_is_looked_at_after_each_range() -> None:
    class Versionless(MemoryBackend):
        def stat(self, key: ObjectKey) -> ObjectInfo | None:
            info = super().stat(key)
            return info and replace(info, etag=None)

    store = Versionless("one")
    put(store, "x", b"abc")
    source = StoreSource(store, object_key("x"))
    info, _ = source.open(1)
    put(store, "x", b"abcdef")

    with pytest.raises(SourceChanged):
        source.read_range(0, memoryview(bytearray(3)), info)


def test_what_the_store_knows_of_an_object_is_passed_on() -> None:
    store = MemoryBackend("one")
    put(store, "x", b"abc")

    source = StoreSource(store, object_key("x"))
    info, reader = source.open(2)

    assert (info.size_bytes, info.ranges, info.crc32c) == (3, True, crc32c_of(b"abc"))
    assert info.etag is not None
    assert source.name == "memory://one: x"
    assert reader.readinto(memoryview(bytearray(9))) == 2
    assert reader.readinto(memoryview(bytearray(9))) == 0


def test_an_object_of_a_store_is_its_own_plain_stream() -> None:
    store = MemoryBackend("one")
    put(store, "x", b"abc")
    source = StoreSource(store, object_key("x"))

    assert read_source(plain(source)) == b"abc"
    assert read_source(as_sent(source)) == b"abc"


@pytest.mark.parametrize("other", [b"B" * 2 * MIB, b"B", b"B" * 3 * MIB])
def test_an_object_that_changes_while_it_is_read_is_never_a_mixture(other: bytes) -> None:
    store = Counting("one")
    put(store, "x", b"A" * 2 * MIB)
    store.after = {1: other}

    with pytest.raises(SourceChanged):
        read_source(StoreSource(store, object_key("x")))


ERRORS = [
    (ObjectMissing("m"), SourceGone),
    (AccessDenied("m"), SourceForbidden),
    (BucketMissing("m"), SourceForbidden),
    (InvalidKey("m"), SourceNotAllowed),
    (TransientStorageError("m"), SourceUnavailable),
    (ChecksumRejected("m"), SourceUnavailable),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS)
def test_an_error_of_the_store_is_one_of_the_source(error: StorageError, expected: type[SourceError]) -> None:
    store = Refusing("one")
    put(store, "x", b"abc")
    info, _ = StoreSource(store, object_key("x")).open(1)
    store.refused = {"x": error}
    source = StoreSource(store, object_key("x"))

    with pytest.raises(expected):
        source.open(1)
    with pytest.raises(expected):
        source.read_range(1, memoryview(bytearray(1)), info)


def test_another_etag_at_a_later_range_is_a_change() -> None:
    store = MemoryBackend("one")
    put(store, "x", b"abc")
    source = StoreSource(store, object_key("x"))
    info, _ = source.open(1)

    with pytest.raises(SourceChanged):
        source.read_range(1, memoryview(bytearray(1)), replace(info, etag="another"))


def _segments(*uris: str) -> bytes:
    lines = [f"#EXTINF:2.0,\n{uri}" for uri in uris]
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", *lines, "#EXT-X-ENDLIST", ""]).encode()
