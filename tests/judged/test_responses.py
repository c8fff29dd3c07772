"""No response is taken for another request's: a server or proxy that answers twice, whenever its duplicate comes."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from archiver.http.options import Timeouts
from archiver.ledger.models import AssetState
from tests.core.contents.media import single
from tests.judged.harness import Harness
from tests.judged.test_trees import media
from tests.judged.twice import ONE_BEHIND, WITH_THE_NEXT, TwiceServer

DELAYS = [0.0, 0.002, 0.02, 0.5, WITH_THE_NEXT]
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Over:
    context: ssl.SSLContext | None = None
    ca_file: Path | None = None


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Over:
    made = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1").configure_cert(context)
    return Over(context, path)


@pytest.fixture(params=["plain", "tls"])
def over(request: pytest.FixtureRequest, tls: Over) -> Over:
    return tls if request.param == "tls" else Over()


def segment(number: int, packets: int = 4) -> bytes:
    return b"".join(
        b"\x47" + number.to_bytes(2, "big") + bytes([packet % 251]) * 185 for packet in range(packets)
    )


def tree(segments: int, packets: int = 4, folder: str = "") -> dict[str, bytes]:
    """Equal in size and ETag, different in every byte that counts."""
    names = [f"s{number}.ts" for number in range(segments)]
    files = {f"/v/{name}": segment(number, packets) for number, name in enumerate(names)}
    return {**files, "/v/master.m3u8": media(*[folder + name for name in names])}


@dataclass(frozen=True)
class Shape:
    """`twice`: the files whose first response comes once more."""

    what: str
    files: Callable[[], dict[str, bytes]]
    twice: frozenset[str]
    fields: dict[str, Any] = field(default_factory=lambda: {"type": "room-vod"})
    master: str = "/v/master.m3u8"
    packed: bool = False
    redirected: bool = False


SMALL_FILE = Shape(
    "a single file of one part",
    lambda: {"/v/chat.csv": b"time,sender,message\n" * 50},
    frozenset({"/v/chat.csv"}),
    {"type": "chat"},
    "/v/chat.csv",
)
LARGE_FILE = Shape(
    "a single file of many parts",
    lambda: {"/v/talk.mp4": single("a.mp4")},
    frozenset({"/v/talk.mp4"}),
    {"type": "room-composite"},
    "/v/talk.mp4",
)
TREE = Shape("a tree of 12, in the middle", lambda: tree(12), frozenset({"/v/s5.ts"}))
TREE_TO_ITS_END = Shape("a tree of 12, the last", lambda: tree(12), frozenset({"/v/s11.ts"}))
LARGE_TREE = Shape(
    "a tree of 200, in the middle and the last", lambda: tree(200), frozenset({"/v/s100.ts", "/v/s199.ts"})
)
TWINS = Shape("two files of the same size, in parts", lambda: tree(2, 700), frozenset({"/v/s0.ts"}))
PACKED = Shape("a tree that is packed on the way", lambda: tree(12), frozenset({"/v/s5.ts"}), packed=True)
REDIRECTED = Shape("a tree that redirects", lambda: tree(12), frozenset({"/v/s5.ts"}), redirected=True)
SHAPES = [SMALL_FILE, LARGE_FILE, TREE, TREE_TO_ITS_END, LARGE_TREE, TWINS, PACKED, REDIRECTED]


def serve(shape: Shape, over: Over, **options: Any) -> TwiceServer:
    files = shape.files()
    moved = {path: f"/cdn{path}" for path in files if shape.redirected and path.endswith(".ts")}
    return TwiceServer(
        {moved.get(path, path): body for path, body in files.items()},
        packed=shape.packed,
        redirects=moved,
        tls=over.context,
        **options,
    )


@contextmanager
def harness_of(
    server: TwiceServer, over: Over, *, connections: int, shape: Shape = TREE, **fields: Any
) -> Iterator[Harness]:
    harness = Harness(
        server,
        shape.master,
        connections=connections,
        ca_file=over.ca_file,
        timeouts=Timeouts(silence=timedelta(seconds=1)),
        **shape.fields,
        **fields,
    )
    try:
        yield harness
    finally:
        harness.close()


def assert_archived_right(harness: Harness, files: Mapping[str, bytes]) -> None:
    row = harness.until_settled()
    stored = harness.stored
    wrong = [path for path, body in stored.items() if files[f"/v/{path}"] != body]
    assert wrong == [], "another file's bytes"
    assert row.state is AssetState.ARCHIVED, row
    assert len(stored) == len(files)


def once(paths: frozenset[str]) -> Callable[[str, int], bool]:
    return lambda path, count: path in paths and count == 1


def always(_path: str, _count: int) -> bool:
    return True


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.what)
@pytest.mark.parametrize("delay", DELAYS, ids=lambda delay: "late" if delay < 0 else f"{delay * 1000:.0f} ms")
@pytest.mark.parametrize("connections", [1, 32])
def test_a_response_that_comes_twice(shape: Shape, delay: float, connections: int, over: Over) -> None:
    with (
        serve(shape, over, twice=once(shape.twice), delay=delay) as server,
        harness_of(server, over, connections=connections, shape=shape) as harness,
    ):
        assert_archived_right(harness, shape.files())


@pytest.mark.parametrize("shape", [TREE, PACKED, REDIRECTED], ids=lambda shape: shape.what)
def test_a_connection_that_is_closed_right_after_the_shift(shape: Shape, over: Over) -> None:
    with (
        serve(shape, over, twice=once(shape.twice), delay=WITH_THE_NEXT, closes=True) as server,
        harness_of(server, over, connections=1, shape=shape) as harness,
    ):
        assert_archived_right(harness, shape.files())
        assert server.shifted


@pytest.mark.parametrize("delay", [0.0, WITH_THE_NEXT, ONE_BEHIND], ids=["at once", "late", "one behind"])
@pytest.mark.parametrize("connections", [1, 32])
def test_a_server_that_answers_everything_twice(delay: float, connections: int, over: Over) -> None:
    """Only the first response of each of its connections is right, and that is enough."""
    with (
        serve(LARGE_TREE, over, twice=always, delay=delay) as server,
        harness_of(server, over, connections=connections) as harness,
    ):
        assert_archived_right(harness, LARGE_TREE.files())
        assert server.shifted or delay != ONE_BEHIND


@pytest.mark.parametrize("connections", [1, 4])
def test_a_server_that_is_one_response_behind_and_refuses_to_say_more_is_not_believed(
    connections: int, over: Over
) -> None:
    """Nothing can be read again, and nothing copied again."""
    files = tree(12)
    with serve(TREE, over, twice=always, delay=ONE_BEHIND) as server:
        server.refuses = lambda path, count: path.endswith(".ts") and count > 1
        with harness_of(server, over, connections=connections) as harness:
            row = harness.until_settled()

            assert row.state is not AssetState.ARCHIVED
            assert all(files[f"/v/{path}"] == body for path, body in harness.stored.items() if ".ts" in path)


def test_a_response_that_comes_after_its_request_timed_out(over: Over) -> None:
    with (
        serve(TREE, over, holds="/v/s5.ts") as server,
        harness_of(server, over, connections=1) as harness,
    ):
        assert_archived_right(harness, TREE.files())
        held = next(connection for connection, path in server.asked if path == "/v/s5.ts")
        assert [path for connection, path in server.asked if connection == held][-1] == "/v/s5.ts"


@pytest.mark.parametrize("delay", [0.0, WITH_THE_NEXT, ONE_BEHIND], ids=["at once", "late", "one behind"])
def test_thumbnails_of_a_server_that_answers_twice(delay: float, over: Over) -> None:
    images = {f"/v/thumbnails/{number}.png": PNG + bytes([number]) * 500 for number in range(12)}
    files = {**tree(12), **images}
    with serve(TREE, over, twice=always, delay=delay) as server:
        server.files = files
        thumbnails = [f"{server.url}{path}" for path in images]
        with harness_of(server, over, connections=4, thumbnails=thumbnails) as harness:
            assert_archived_right(harness, files)


@pytest.mark.parametrize("shape", [TREE, LARGE_TREE, PACKED], ids=lambda shape: shape.what)
def test_a_good_server_is_asked_once_more_for_each_connection_at_most(shape: Shape, over: Over) -> None:
    with (
        serve(shape, over) as server,
        harness_of(server, over, connections=4, shape=shape) as harness,
    ):
        assert_archived_right(harness, shape.files())
    asked = [path for _, path in server.asked if path.endswith(".ts")]
    assert len(asked) - len(set(asked)) <= 4


def test_a_single_file_is_not_asked_for_again_to_confirm_it(over: Over) -> None:
    """The first response on a connection confirms itself: once to see what it is, once to copy it."""
    with (
        serve(SMALL_FILE, over) as server,
        harness_of(server, over, connections=4, shape=SMALL_FILE) as harness,
    ):
        assert_archived_right(harness, SMALL_FILE.files())
    assert server.times_asked(SMALL_FILE.master) <= 2
