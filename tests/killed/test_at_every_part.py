"""SIGKILL when any part has just arrived at the store, and at the moments around: the next worker, with another
URL, sends only what is missing. Bytes are counted at the source and in front of the store.

Real clouds want parts of 5 MiB (S3); these servers take smaller ones, so that every moment can be tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import google_crc32c
import pytest

from archiver.core.contents.sniff import SNIFF_BYTES
from tests.killed.destinations import (
    Destination,
    azurite_destination,
    directory_destination,
    fake_gcs_destination,
    gcs_book_destination,
    s3_destination,
)
from tests.killed.fork_server import ForkServer
from tests.killed.harness import FOLDER, Harness, Life, flush
from tests.killed.sink import Moment
from tests.killed.worker import CONNECTIONS
from tests.servers import GcsServer, S3Server
from tests.transfer.builders import some_bytes
from tests.transfer.origin import Origin

PARTS = 8
NAME = "Rec-room-1-1700000000.mp4"
KEY = f"{FOLDER}/{NAME}"
PROBES = 6 * SNIFF_BYTES  # bytes at the source: what is it, is it the same, and where its boxes end

BEGUN = Moment("part", 1, done=False)
COMPLETING, COMPLETED = Moment("complete", done=False), Moment("complete")
SENT = [Moment("part", number) for number in range(1, PARTS + 1)]
NOTED = [Moment("part", number, done=False) for number in range(2, PARTS)]
MOMENTS = {
    "ministack": [BEGUN, *SENT, COMPLETING, COMPLETED],
    "rclone": [BEGUN, *SENT, COMPLETING, COMPLETED],
    "azurite": [Moment("begin"), SENT[0], SENT[3], SENT[-1], COMPLETING, COMPLETED],
    # a session's last part, being no multiple of 256 KiB, travels with its completion
    "gcs-by-the-book": [BEGUN, *SENT[:-1], COMPLETING, COMPLETED],
    # this one appends a chunk that is sent again; so the worker dies before the next one is
    "fake-gcs-server": [BEGUN, *NOTED, COMPLETING, COMPLETED],
}
# how many parts that a server holds are sent again: it reports what it holds; or the journal knows all but those that
# were under way, one a connection
AGAIN = {
    "ministack": 0,
    "rclone": CONNECTIONS,
    "azurite": CONNECTIONS,
    "gcs-by-the-book": 1,
    "fake-gcs-server": 1,
}

Servers = dict[str, Callable[[], AbstractContextManager[Destination]]]


def video(part_bytes: int, seed: int = 1) -> bytes:
    """Eight parts, the last one short and odd."""
    start = b"\0\0\0\x10ftypmp42\0\0\0\0" + b"\0\0\0\x18moov\0\0\0\x10trak" + bytes(8) + b"\0\0\0\0mdat"
    return start + some_bytes((PARTS - 1) * part_bytes + 4321 - len(start), seed)


@pytest.fixture(scope="module")
def servers(
    ministack_server: S3Server,
    rclone_server: S3Server,
    gcs_server: GcsServer,
    request: pytest.FixtureRequest,
) -> Servers:
    return {
        # asked for where it is used: without node it is not there
        "azurite": lambda: azurite_destination(request.getfixturevalue("azurite_server")),
        "ministack": lambda: s3_destination(ministack_server),
        "rclone": lambda: s3_destination(rclone_server),
        "gcs-by-the-book": gcs_book_destination,
        "fake-gcs-server": lambda: fake_gcs_destination(gcs_server),
    }


@pytest.fixture
def destination(servers: Servers, where: str) -> Iterator[Destination]:
    with servers[where]() as made:
        yield made


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Destination]:
    with directory_destination(tmp_path / "archive") as made:
        yield made


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def harness_of(fork_server: ForkServer, redis_url: str, origin: Origin, destination: Destination) -> Harness:
    content = origin.files["/rec.mp4"] = video(destination.part_bytes)
    return Harness(fork_server, redis_url, origin, destination, "/rec.mp4", size=len(content))


def assert_archived(harness: Harness, last: Life) -> None:
    """Whole, verified, and nothing left of any upload."""
    content = harness.origin.files["/rec.mp4"]
    assert last.told().outcome in ("Archived", "AlreadyArchived"), last.told()
    assert harness.destination.read(KEY) == content
    (listed,) = (one for one in harness.manifest()["objects"] if one["path"] == NAME)
    assert (listed["size"], listed["crc32c"]) == (len(content), f"{google_crc32c.value(content):08x}")
    assert harness.state() == "archived"
    assert harness.ledger_keys("upload") == []
    assert harness.destination.open_uploads() in (0, None)


@pytest.mark.parametrize(
    ("where", "moment"),
    [(where, moment) for where, moments in MOMENTS.items() for moment in moments],
    ids=str,
)
def test_killed_there_the_next_worker_sends_what_is_missing(
    fork_server: ForkServer,
    redis_url: str,
    origin: Origin,
    destination: Destination,
    where: str,
    moment: Moment,
) -> None:
    harness = harness_of(fork_server, redis_url, origin, destination)
    content = origin.files["/rec.mp4"]

    killed = harness.live(moment)
    second = harness.live()

    assert killed.report is None
    assert_archived(harness, second)
    missing = len(content) - killed.seen.held_bytes + AGAIN[where] * destination.part_bytes
    assert second.seen.media_bytes <= missing
    assert second.source_bytes <= missing + PROBES
    if AGAIN[where] == 0:
        assert second.seen.media_bytes == missing


@pytest.mark.parametrize("where", ["ministack", "rclone"])
def test_an_upload_that_nobody_knows_of_is_for_the_sweep_of_orphans(
    fork_server: ForkServer,
    redis_url: str,
    origin: Origin,
    destination: Destination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = harness_of(fork_server, redis_url, origin, destination)
    harness.live(Moment("begin"))

    second = harness.live()

    assert second.told().outcome == "Archived"
    assert second.seen.media_bytes == len(origin.files["/rec.mp4"])
    assert destination.open_uploads() == 1
    assert destination.sweep(timedelta(0)) == 1
    assert_archived(harness, second)


@pytest.mark.parametrize("where", ["ministack", "rclone", "gcs-by-the-book", "azurite"])
def test_workers_that_die_one_after_the_other_each_go_on(
    fork_server: ForkServer, redis_url: str, origin: Origin, destination: Destination, where: str
) -> None:
    harness = harness_of(fork_server, redis_url, origin, destination)

    lives = [harness.live(Moment("part", 2)) for _ in range(3)]
    lives.append(harness.live())

    assert [life.report for life in lives[:-1]] == [None] * 3
    assert_archived(harness, lives[-1])
    sent = sum(life.seen.held_bytes for life in lives)
    assert sent <= len(origin.files["/rec.mp4"]) + 3 * AGAIN[where] * destination.part_bytes


def test_a_server_that_appends_what_is_sent_again_is_refused_its_object_and_then_gets_it_right(
    fork_server: ForkServer, redis_url: str, origin: Origin, servers: Servers
) -> None:
    with servers["fake-gcs-server"]() as destination:
        harness = harness_of(fork_server, redis_url, origin, destination)
        harness.live(Moment("part", 3))

        second = harness.live()
        third = harness.live()

        assert second.told().outcome == "WillRetry"
        assert "ChecksumRejected" in second.told().reason
        assert_archived(harness, third)


@pytest.mark.parametrize("where", ["ministack", "rclone", "gcs-by-the-book", "azurite"])
def test_a_source_that_changed_meanwhile_is_restarted_and_the_log_says_so(
    fork_server: ForkServer, redis_url: str, origin: Origin, destination: Destination
) -> None:
    harness = harness_of(fork_server, redis_url, origin, destination)
    harness.live(Moment("part", 4))
    other = origin.files["/rec.mp4"] = video(destination.part_bytes, seed=2)
    origin.etag = '"v2"'

    second = harness.live()

    assert_archived(harness, second)
    assert second.seen.media_bytes == len(other)
    (reported,) = (event for event in second.told().events if event["event"] == "upload_begun_again")
    assert (reported["key"], reported["reason"]) == (KEY, "the source changed since another worker began it")


# -- a directory ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", range(1, PARTS + 1))
def test_killed_with_parts_in_a_directory_the_next_worker_writes_what_is_missing(
    fork_server: ForkServer, redis_url: str, origin: Origin, directory: Destination, parts: int
) -> None:
    harness = harness_of(fork_server, redis_url, origin, directory)
    content = origin.files["/rec.mp4"]

    killed = harness.live(parts=parts)
    held_bytes = directory.held_bytes()
    second = harness.live()

    assert killed.report is None
    assert_archived(harness, second)
    assert parts <= -(-held_bytes // directory.part_bytes) < parts + CONNECTIONS
    assert second.told().part_bytes_sent == len(content) - held_bytes
    assert second.source_bytes <= len(content) - held_bytes + PROBES


def test_killed_after_any_change_to_a_directory_the_next_worker_brings_it_to_the_same_end(
    fork_server: ForkServer, redis_url: str, origin: Origin, tmp_path: Path
) -> None:
    content = video(64 * 1024)[: 64 * 1024 + 321]
    origin.files["/rec.mp4"] = content
    step, killed = 0, True
    while killed:
        step += 1
        with directory_destination(tmp_path / str(step)) as destination:
            flush(redis_url)
            harness = Harness(fork_server, redis_url, origin, destination, "/rec.mp4", size=len(content))
            last = harness.live(steps=step)
            if killed := last.report is None:
                held_bytes = destination.held_bytes()
                last = harness.live()
                assert last.told().part_bytes_sent <= len(content) - held_bytes, step
                destination.sweep(timedelta(0))  # what was made and could not be noted any more
            assert_archived(harness, last)
    assert step > 30
