"""Assets of one file: broken is never archived, whole is never thrown away."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import pytest

from archiver.core.records.commit import mark_damaged
from archiver.core.records.keys import manifest_key
from archiver.ledger.models import AssetState
from tests.core.contents.media import ffmpeg, single
from tests.core.contents.origin import Answer, Origin, Request
from tests.core.examples import NOW
from tests.judged.harness import Harness, judged

ARCHIVED, QUARANTINED, LOST = AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.LOST
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in</body></html>"

LONG_SUMMARY = json.dumps({"summary": "we met " * 20_000, "topics": ["one"]}).encode()


def mp4() -> bytes:
    return single("a.mp4")


def webm() -> bytes:
    return single("a.webm")


def fragmented() -> bytes:
    return ffmpeg(
        *["-f", "lavfi", "-i", "testsrc2=size=64x36:rate=5:duration=4"],
        *["-c:v", "libx264", "-preset", "ultrafast", "-movflags", "frag_keyframe+empty_moov"],
        *["-g", "5", "-f", "mp4", "pipe:1"],
    )


def without(data: bytes, box: bytes) -> bytes:
    """An mp4 without one of its top-level boxes."""
    kept, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        if data[at + 4 : at + 8] != box:
            kept.append(data[at : at + size])
        at += size
    return b"".join(kept)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-9],
    "damaged": lambda data: data[:-8] + bytes(4) + data[-4:],
    "followed by rubbish": lambda data: data + b"rubbish",
}


def open_ended() -> bytes:
    """An mp4 whose last box, the mdat, reaches to the end of the file, wherever that is."""
    return without(mp4(), b"mdat") + b"\0\0\0\0mdat" + bytes(20_000)


@dataclass
class Case:
    what: str
    type: str
    name: str
    body: bytes
    state: AssetState
    fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


def cases() -> list[Case]:
    film, track, pieces = mp4(), webm(), fragmented()
    summary = json.dumps({"summary": "we met", "topics": ["one"]}).encode()
    return [
        # -- broken: never archived ---------------------------------------------------------------------------
        Case("an mp4 cut in its last box", "room-composite", "a.mp4", film[:-10], QUARANTINED),
        Case("an mp4 cut in the middle", "room-composite", "a.mp4", film[: len(film) // 2], QUARANTINED),
        Case("an mp4 without moov", "room-composite", "a.mp4", without(film, b"moov"), QUARANTINED),
        Case("an mp4 without mdat", "room-composite", "a.mp4", without(film, b"mdat"), QUARANTINED),
        Case(
            "an mp4 with an empty mdat",
            "stream",
            "a.mp4",
            without(film, b"mdat") + b"\0\0\0\x08mdat",
            QUARANTINED,
        ),
        Case("a fragmented mp4 cut in a fragment", "stream", "a.mp4", pieces[:-100], QUARANTINED),
        Case("a webm cut in a cluster", "track", "a.webm", track[:-20], QUARANTINED),
        Case("an empty mp4", "room-composite", "a.mp4", b"", LOST),
        Case("a long summary that is cut", "summary", "s.json", LONG_SUMMARY[:-300], QUARANTINED),
        Case("captions that are empty, without a proof", "transcript", "t.vtt", b"", QUARANTINED),
        Case(
            "a JSON error as a summary",
            "summary",
            "s.json",
            b'{"error":"AccessDenied","code":403}',
            LOST,
            headers={"Content-Type": "application/json"},
        ),
        Case(
            "a JSON error as a transcript",
            "transcript",
            "t.txt",
            b'{"message":"rate limited"}',
            LOST,
            headers={"Content-Type": "application/json"},
        ),
        Case(
            "a JSON error of exactly the API's size",
            "summary",
            "s.json",
            b'{"error":"AccessDenied","code":403}',
            QUARANTINED,
            {"size": 35},
        ),
        Case(
            "a login page for an mp4",
            "room-composite",
            "a.mp4",
            HTML,
            LOST,
            headers={"Content-Type": "text/html"},
        ),
        Case("a login page for a chat", "chat", "c.csv", HTML, LOST, headers={"Content-Type": "text/html"}),
        Case(
            "an S3 error with status 200",
            "track",
            "a.webm",
            b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>',
            LOST,
            headers={"Content-Type": "application/xml"},
        ),
        # -- whole: never thrown away -------------------------------------------------------------------------
        Case("an mp4", "room-composite", "a.mp4", film, ARCHIVED),
        Case("a fragmented mp4", "stream", "a.mp4", pieces, ARCHIVED),
        Case("a webm", "track", "a.webm", track, ARCHIVED),
        Case(
            "an mp4 one byte off the API's size",
            "room-composite",
            "a.mp4",
            film,
            ARCHIVED,
            {"size": len(film) + 1},
        ),
        Case("an mp4 whose size the API rounds", "room-composite", "a.mp4", film, ARCHIVED, {"size": 1000}),
        Case("a chat of another size", "chat", "c.csv", b"a,b\n1,2\n", QUARANTINED, {"size": 9}),
        Case("a chat of the API's size", "chat", "c.csv", b"a,b\n1,2\n", ARCHIVED, {"size": 8}),
        Case("an API that says 0", "chat", "c.csv", b"a,b\n1,2\n", ARCHIVED, {"size": 0}),
        Case("a summary", "summary", "s.json", summary, ARCHIVED),
        Case("a long summary", "summary", "s.json", LONG_SUMMARY, ARCHIVED),
        Case(
            "a long summary whose size the API rounds",
            "summary",
            "s.json",
            LONG_SUMMARY,
            ARCHIVED,
            {"size": 9},
        ),
        Case(
            "lines of JSON of another size",
            "summary",
            "s.json",
            b'{"a":1}\n' * 1000,
            QUARANTINED,
            {"size": 9000},
        ),
        Case("a summary in UTF-16", "summary", "s.json", summary.decode().encode("utf-16"), ARCHIVED),
        Case("a summary in Markdown", "summary", "s.json", b"# We met\n\n- one\n", QUARANTINED),
        Case(
            "a transcript that begins with a comment",
            "transcript",
            "t.txt",
            b"<!-- by x -->\nHello",
            ARCHIVED,
        ),
        Case(
            "a transcript that begins with <headline>",
            "transcript",
            "t.txt",
            b"<headline>Hi</headline>",
            ARCHIVED,
        ),
        Case("an mp4 under the name of a webm", "track", "a.webm", film, ARCHIVED),
        Case("an mkv", "track", "a.mkv", track, ARCHIVED),
        Case("text where an mp4 should be", "room-composite", "a.mp4", b"no film today", QUARANTINED),
        Case(
            "a gzip coding whose packed size the API gives",
            "chat",
            "c.csv",
            gzip.compress(b"a,b\n1,2\n", mtime=0),
            ARCHIVED,
            {"size": len(gzip.compress(b"a,b\n1,2\n", mtime=0))},
            {"Content-Encoding": "gzip"},
        ),
        Case(
            "a gzip coding whose unpacked size the API gives",
            "chat",
            "c.csv",
            gzip.compress(b"a,b\n1,2\n", mtime=0),
            ARCHIVED,
            {"size": 8},
            {"Content-Encoding": "gzip"},
        ),
        Case(
            "a list of codings",
            "chat",
            "c.csv",
            gzip.compress(b"a,b\n1,2\n", mtime=0),
            ARCHIVED,
            {"size": 8},
            {"Content-Encoding": "aws-chunked,gzip"},
        ),
        *[
            Case(
                f"a coding that is none: {word}",
                "chat",
                "c.csv",
                b"a,b\n",
                ARCHIVED,
                {"size": 4},
                {"Content-Encoding": word},
            )
            for word in ("utf-8", "binary", "none", "aws-chunked", "identity")
        ],
        Case(
            "a coding that nobody asked for",
            "chat",
            "c.csv",
            b"\x8b\x01\x80ab\x03",
            QUARANTINED,
            {},
            {"Content-Encoding": "br"},
        ),
        Case(
            "a body that only says gzip",
            "chat",
            "c.csv",
            b"a,b\n",
            ARCHIVED,
            {"size": 4},
            {"Content-Encoding": "gzip"},
        ),
        *[
            Case(
                f"gzip that is {how} at the source",
                "chat",
                "c.csv",
                damage(gzip.compress(b"a,b\n1,2\n" * 50, mtime=0)),
                QUARANTINED,
                {},
                {"Content-Encoding": "gzip"},
            )
            for how, damage in DAMAGE.items()
        ],
        Case("an mp4 that does not say its end", "stream", "a.mp4", open_ended(), ARCHIVED),
        Case(
            "the same, of the API's size",
            "stream",
            "a.mp4",
            open_ended(),
            ARCHIVED,
            {"size": len(open_ended())},
        ),
        Case(
            "the same, cut by the API's word",
            "stream",
            "a.mp4",
            open_ended()[:-9000],
            QUARANTINED,
            {"size": len(open_ended())},
        ),
        Case(
            "the same, of a size that the API rounds",
            "stream",
            "a.mp4",
            open_ended(),
            ARCHIVED,
            {"size": len(open_ended()) + 500},
        ),
        Case("a VOD that is text", "room-vod", "v.txt", b"nothing recorded", QUARANTINED),
        Case("a VOD that is a single mp4", "room-vod", "v.mp4", film, ARCHIVED),
        Case("a type nobody knows", "whiteboard", "w.csv", b"x,y\n1,2\n", ARCHIVED),
    ]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.what)
def test_a_file_is_judged_rightly(case: Case) -> None:
    path = f"/r/{case.name}"
    with Origin({path: case.body}) as origin:
        origin.headers = lambda _request: Answer(200, b"", case.headers)

        outcome = judged(origin, path, type=case.type, **case.fields)

    assert outcome.state is case.state, outcome
    is_whole_gzip = case.body.startswith(b"\x1f\x8b") and case.state is ARCHIVED
    whole = gzip.decompress(case.body) if is_whole_gzip else case.body
    if case.state is LOST:
        assert outcome.stored == {}
    else:
        assert outcome.stored[case.name] == whole
    assert bool(outcome.doubts) is (case.state is QUARANTINED)


class OddRanges:
    """A server that answers ranges in its own way."""

    def __init__(self, body: bytes, how: str) -> None:
        self.body, self.how, self.served = body, how, 0

    def __call__(self, request: Request) -> Answer | None:
        asked = request.headers.get("range")
        self.served += 1
        etag = {
            "ETag": f'"edge-{self.served % 2}"' if self.how == "an ETag that differs by edge" else '"one"'
        }
        if asked is None:
            return Answer(200, self.body, etag)
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        last = min(last, len(self.body) - 1)
        if self.how == "ranges that are capped":
            last = min(last, first + 99_999)
        piece = self.body[first : last + 1]
        if self.how == "a 206 without Content-Range":
            return Answer(206, piece, etag)
        if self.how == "a 200 to every second range" and self.served % 2 == 0:
            return Answer(200, self.body, etag)
        total = "*" if self.how == "a 206 whose total is unknown" else len(self.body)
        return Answer(206, piece, {**etag, "Content-Range": f"bytes {first}-{last}/{total}"})


@pytest.mark.parametrize(
    "how",
    [
        "a 206 without Content-Range",
        "a 206 whose total is unknown",
        "ranges that are capped",
        "an ETag that differs by edge",
        "a 200 to every second range",
    ],
)
def test_a_server_that_answers_ranges_in_its_own_way_is_read_as_one_plain_stream(how: str) -> None:
    large = mp4() + (8 + 300_000).to_bytes(4, "big") + b"free" + bytes(300_000)
    with Origin({}) as origin:
        origin.rule = OddRanges(large, how)

        outcome = judged(origin, "/r/a.mp4", type="room-composite")

    assert outcome.state is ARCHIVED, outcome
    assert outcome.stored["a.mp4"] == large


def test_an_etag_that_is_another_at_each_request_does_not_keep_an_asset_from_being_kept() -> None:
    number = iter(range(10**6))
    body = b"no film today" * 100
    with Origin({}) as origin:
        origin.rule = lambda _request: Answer(200, body, {"ETag": f'"{next(number)}"'})
        harness = Harness(origin, "/r/a.mp4", type="room-composite")

        row = harness.until_settled()

    assert row.state is QUARANTINED, row
    assert harness.stored["a.mp4"] == body
    assert harness.clock() - NOW < timedelta(days=1), "after as many attempts as with any other"
    harness.close()


class Unframed:
    """Closes the connection where the body ends, and says no length: a clean cut in it cannot be seen."""

    def __init__(self, bodies: dict[str, list[bytes]]) -> None:
        self._bodies = bodies
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(65536)
                path = asked.split()[1].decode()
                bodies = self._bodies[path]
                body = bodies.pop(0) if len(bodies) > 1 else bodies[0]
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("what", "type_", "name", "bodies", "size", "state"),
    [
        ("an mp4, whose container proves it", "stream", "a.mp4", [mp4()], None, ARCHIVED),
        ("an mp4 that does not say its end", "stream", "a.mp4", [open_ended()[:-99]], None, QUARANTINED),
        ("an mp4 that is cut each time", "stream", "a.mp4", [mp4()[:-9]], None, QUARANTINED),
        ("an mp4 that is cut at first", "stream", "a.mp4", [mp4()[:-9], mp4()[:-99], mp4()], None, ARCHIVED),
        ("a text of the API's size", "chat", "c.csv", [b"a,b\n1,2\n"], 8, ARCHIVED),
        ("a text of which nobody knows the length", "chat", "c.csv", [b"a,b\n1,2\n"], None, QUARANTINED),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_body_without_a_length_is_archived_only_with_a_proof(
    what: str, type_: str, name: str, bodies: list[bytes], size: int | None, state: AssetState
) -> None:
    with Unframed({f"/r/{name}": list(bodies)}) as server, Origin({}) as origin:
        outcome = judged(origin, f"/r/{name}", type=type_, size=size, url=lambda: f"{server.url}/r/{name}")

    assert outcome.state is state, (what, outcome)
    assert outcome.stored[name] == bodies[-1]


def test_an_asset_that_is_found_whole_at_a_later_look_is_archived_by_itself() -> None:
    film = mp4()
    with Origin({"/r/a.mp4": film[:-10]}) as origin:
        harness = Harness(origin, "/r/a.mp4", type="room-composite")
        assert harness.until_settled().state is QUARANTINED
        origin.files["/r/a.mp4"] = film

        row = harness.until_deadline()

    assert row.state is ARCHIVED
    assert harness.stored["a.mp4"] == film
    harness.close()


def test_what_is_quarantined_is_not_read_again_while_the_source_has_the_same() -> None:
    with Origin({"/r/a.mp4": b"no film today" * 10_000}) as origin:
        harness = Harness(origin, "/r/a.mp4", type="room-composite")
        harness.until_settled()
        bytes_before = served(origin)

        harness.until_deadline()

    assert harness.row.state is QUARANTINED
    assert served(origin) - bytes_before < 20 * 2 * 4096 + 20_000, "only its first bytes, about daily"
    harness.close()


@pytest.mark.parametrize(
    ("etag", "reads"),
    [('W/"one"', 3), ("", 3 + 20)],
    ids=["a weak ETag: not at all", "no validator: once a look"],
)
def test_a_cut_film_that_is_kept_is_read_no_oftener_than_needed(etag: str, reads: int) -> None:
    cut = mp4()[:-10] * 3
    with Origin({"/r/a.mp4": cut}) as origin:
        origin.headers = lambda _request: Answer(200, b"", {"ETag": etag})
        harness = Harness(origin, "/r/a.mp4", type="room-composite")

        row = harness.until_deadline()

    assert row.state is QUARANTINED
    assert harness.stored["a.mp4"] == cut
    first_bytes = 20 * 2 * 64 * 1024
    assert served(origin) < reads * (len(cut) + 64 * 1024) + first_bytes
    harness.close()


def test_what_is_kept_and_copied_again_in_vain_is_still_kept() -> None:
    cut = mp4()[:-10]
    with Origin({"/r/a.mp4": cut}) as origin:
        harness = Harness(origin, "/r/a.mp4", type="room-composite")
        assert harness.until_settled().state is QUARANTINED
        mark_damaged(
            harness.stores[0],
            manifest_key(harness.asset.id, harness.asset.created_at),
            ["it is copied again"],
        )
        harness.ledger.reopen(harness.asset.id)
        origin.files.clear()

        row = harness.until_settled()

    assert row.state is QUARANTINED, row
    assert harness.stored["a.mp4"] == cut
    harness.close()


def served(origin: Origin) -> int:
    """Return how many bytes were asked for, in ranges."""
    total = 0
    for request in origin.requests:
        first, _, last = request.headers.get("range", "bytes=0-9999999").removeprefix("bytes=").partition("-")
        total += int(last) - int(first) + 1
    return total
