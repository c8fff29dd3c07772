"""SIGKILL in the middle of a tree or a zip: the next worker goes on at the object, for LISTs and not a request for
each of those that are there."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping

import google_crc32c
import pytest

from archiver.core.attempt.copying import IN_FLIGHT
from archiver.core.attempt.stored_journal import JOURNAL_EVERY
from archiver.core.attempt.unconfirmed import CONFIRM_EVERY
from archiver.transfer.base import CHECKED_BYTES
from tests.killed.destinations import Destination, s3_destination
from tests.killed.fork_server import ForkServer
from tests.killed.harness import FOLDER, Harness, Life
from tests.killed.sink import Moment
from tests.servers import S3Server
from tests.transfer.builders import some_bytes
from tests.transfer.origin import Origin

# when so many were sent, the ledger knows a batch of them, whatever else was under way
SENT = IN_FLIGHT + CONFIRM_EVERY + 8
MEMBERS_SENT = IN_FLIGHT + JOURNAL_EVERY + 8  # of a zip, which confirms itself
DIRECTORY_BYTES = 128 * 1024  # the last 64 KiB, where it begins, and itself; and the first bytes


def tree(segments: int) -> dict[str, bytes]:
    packets = [b"G" + some_bytes(187, seed=number) for number in range(segments + 1)]
    files = {f"0/{number}.ts": packets[number] + packets[number + 1] for number in range(segments)}
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2"]
    for number in range(segments):
        lines += ["#EXTINF:2,", f"{number}.ts"]
    files["0/stream.m3u8"] = "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()
    files["master.m3u8"] = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0/stream.m3u8\n"
    return files


def zipped(files: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return held.getvalue()


FILES = tree(SENT + 12)
MEMBERS = tree(MEMBERS_SENT + 12)


@pytest.fixture
def destination(ministack_server: S3Server) -> Iterator[Destination]:
    with s3_destination(ministack_server) as made:
        yield made


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def assert_whole(harness: Harness, last: Life, files: Mapping[str, bytes]) -> None:
    assert last.told().outcome == "Archived", last.told()
    listed = {one["path"]: (one["size"], one["crc32c"]) for one in harness.manifest()["objects"]}
    assert listed == {path: (len(body), f"{google_crc32c.value(body):08x}") for path, body in files.items()}
    for path in ("0/0.ts", f"0/{len(files) - 3}.ts", "0/stream.m3u8", "master.m3u8"):
        assert harness.destination.read(f"{FOLDER}/{path}") == files[path]


def put_again(harness: Harness, life: Life, paths: set[str]) -> set[str]:
    put = {path.partition(f"{FOLDER}/")[2] for kind, path in life.seen.paths if kind == "put"}
    return put & paths


def test_a_tree_goes_on_at_the_object_for_lists_alone(
    fork_server: ForkServer, redis_url: str, origin: Origin, destination: Destination
) -> None:
    origin.files = {f"/vod/{path}": body for path, body in FILES.items()}
    harness = Harness(
        fork_server, redis_url, origin, destination, "/vod/master.m3u8", type="room-vod", size=None
    )

    killed = harness.live(Moment("put", SENT))
    known = harness.stored_paths()
    second = harness.live()

    assert killed.report is None
    assert len(known) > CONFIRM_EVERY - JOURNAL_EVERY
    assert_whole(harness, second, FILES)
    asked = [(path.removeprefix("/vod/"), stop - start) for path, start, stop in second.ranges]
    assert all(size_bytes <= CHECKED_BYTES for path, size_bytes in asked if path in known), (
        "is it still the same?"
    )
    assert put_again(harness, second, known) == set()
    pages = -(-len(FILES) // 1000)
    assert second.seen.asked["list"] == 3 * pages, "what is there, and all of it before and after the commit"
    assert second.seen.asked["put"] <= len(FILES) + 1 - len(known)  # and the manifest


def test_a_zip_goes_on_at_the_member(
    fork_server: ForkServer, redis_url: str, origin: Origin, destination: Destination
) -> None:
    data = origin.files["/vod.zip"] = zipped(MEMBERS)
    harness = Harness(fork_server, redis_url, origin, destination, "/vod.zip", type="room-vod", size=None)

    killed = harness.live(Moment("put", MEMBERS_SENT))
    known = harness.stored_paths()
    second = harness.live()

    assert killed.report is None
    assert len(known) >= JOURNAL_EVERY
    assert_whole(harness, second, MEMBERS)
    assert put_again(harness, second, known) == set()
    assert second.seen.asked["list"] == 3, "what is there, and all of it before and after the commit"
    known_bytes = sum(len(MEMBERS[path]) for path in known)
    assert second.source_bytes <= len(data) - known_bytes + DIRECTORY_BYTES


def test_a_zip_that_changed_meanwhile_is_unpacked_again(
    fork_server: ForkServer, redis_url: str, origin: Origin, destination: Destination
) -> None:
    origin.files["/vod.zip"] = zipped(
        {path: body[:-1] + b"!" for path, body in MEMBERS.items() if ".ts" in path}
    )
    harness = Harness(fork_server, redis_url, origin, destination, "/vod.zip", type="room-vod", size=None)
    harness.live(Moment("put", MEMBERS_SENT))
    origin.files["/vod.zip"], origin.etag = zipped(MEMBERS), '"v2"'

    second = harness.live()

    assert_whole(harness, second, MEMBERS)
