"""HLS trees: broken is never archived, one bad leaf never costs the rest, whole is never thrown away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from archiver.core.upkeep.watch import reopen_ended
from archiver.ledger.models import AssetState
from tests.core.contents.media import single
from tests.core.contents.origin import Answer, Origin, Request
from tests.core.examples import NOW, RETENTION
from tests.judged.harness import Harness, judged

ARCHIVED, QUARANTINED, LOST = AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.LOST
HTML = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


def ts(mark: bytes = b"1", packets: int = 20) -> bytes:
    return (b"\x47" + mark * 187) * packets


def media(*names: str, seconds: float = 2, ends: bool = True, tags: str = "") -> bytes:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{int(seconds)}"]
    lines += [tags] if tags else []
    for name in names:
        lines += [f"#EXTINF:{seconds},", name]
    lines += ["#EXT-X-ENDLIST"] if ends else []
    return ("\n".join(lines) + "\n").encode()


MASTER = (
    b"#EXTM3U\n"
    b'#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="subs",NAME="English",URI="subs/subs.m3u8"\n'
    b'#EXT-X-STREAM-INF:BANDWIDTH=2,SUBTITLES="subs"\nhigh/stream.m3u8\n'
    b'#EXT-X-STREAM-INF:BANDWIDTH=1,SUBTITLES="subs"\nlow/stream.m3u8\n'
)


def tree() -> dict[str, bytes]:
    """Two layers of three segments, and captions."""
    files = {"master.m3u8": MASTER, "subs/subs.m3u8": media("c0.vtt", "c1.vtt", "c2.vtt")}
    for layer in ("high", "low"):
        files[f"{layer}/stream.m3u8"] = media("s0.ts", "s1.ts", "s2.ts")
        files |= {f"{layer}/s{number}.ts": ts(layer[:1].encode(), 20 + number) for number in range(3)}
    files |= {f"subs/c{number}.vtt": b"WEBVTT\n\n" for number in range(3)}
    return files


Change = Callable[[dict[str, bytes]], None]


@dataclass
class Case:
    what: str
    change: Change
    state: AssetState
    missing: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    unreachable: str = "-"  # files whose names begin so are named by no playlist that can be read


def put(path: str, body: bytes) -> Change:
    return lambda files: files.update({path: body})


def drop(*paths: str) -> Change:
    def change(files: dict[str, bytes]) -> None:
        for path in paths:
            del files[path]

    return change


def both(*changes: Change) -> Change:
    def change(files: dict[str, bytes]) -> None:
        for each in changes:
            each(files)

    return change


def only(**files_by_name: bytes) -> Change:
    def change(files: dict[str, bytes]) -> None:
        files.clear()
        files.update(
            {name.replace("__", "/").replace("_dot_", "."): body for name, body in files_by_name.items()}
        )

    return change


def nothing(_files: dict[str, bytes]) -> None:
    return


CASES = [
    Case("a whole tree", nothing, ARCHIVED),
    Case(
        "a whole tree of the length and layers that the API says",
        nothing,
        ARCHIVED,
        (),
        {"duration": 6, "metadata": {"num_layers": "2"}},
    ),
    Case("an API that says nothing", nothing, ARCHIVED, (), {"duration": 0, "size": 0}),
    Case("an API whose size is far from the tree's", nothing, ARCHIVED, (), {"size": 123}),
    # -- broken: never archived -------------------------------------------------------------------------------
    Case("a master that is #EXTM3U alone", only(master_dot_m3u8=b"#EXTM3U\n"), LOST),
    Case("a master that is an error", only(master_dot_m3u8=b"#EXTM3U\n#EXT-X-ERROR: not found\n"), LOST),
    Case(
        "an empty variant among full ones",
        put("low/stream.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-ENDLIST\n"),
        QUARANTINED,
        unreachable="low/s",
    ),
    Case(
        "a variant that is #EXTM3U alone",
        put("low/stream.m3u8", b"#EXTM3U\n"),
        QUARANTINED,
        unreachable="low/s",
    ),
    Case(
        "a variant that is an error",
        put("low/stream.m3u8", b"#EXTM3U\n#EXT-X-ERROR\n"),
        QUARANTINED,
        unreachable="low/s",
    ),
    Case("only half as long as the API says", nothing, QUARANTINED, (), {"duration": 12}),
    Case("fewer layers than the API says", nothing, QUARANTINED, (), {"metadata": {"num_layers": "3"}}),
    Case("a picture where a segment should be", put("low/s1.ts", single("a.png")), QUARANTINED),
    Case("an empty segment", put("low/s1.ts", b""), QUARANTINED),
    # -- one bad leaf never costs the rest --------------------------------------------------------------------
    Case("a missing segment", drop("low/s1.ts"), QUARANTINED, ("low/s1.ts",)),
    Case("a missing caption", drop("subs/c1.vtt"), QUARANTINED, ("subs/c1.vtt",)),
    Case(
        "a missing variant", drop("low/stream.m3u8"), QUARANTINED, ("low/stream.m3u8",), unreachable="low/s"
    ),
    Case(
        "missing captions altogether",
        drop("subs/subs.m3u8"),
        QUARANTINED,
        ("subs/subs.m3u8",),
        unreachable="subs/c",
    ),
    Case("an error page for a segment", put("low/s1.ts", HTML), QUARANTINED, ("low/s1.ts",)),
    Case(
        "an error page for a variant",
        put("low/stream.m3u8", HTML),
        QUARANTINED,
        ("low/stream.m3u8",),
        unreachable="low/s",
    ),
    Case(
        "a part that is a segment, too, and is gone",
        both(
            put(
                "low/stream.m3u8", media("s0.ts", "s1.ts", "s2.ts", tags='#EXT-X-PART:DURATION=1,URI="s1.ts"')
            ),
            drop("low/s1.ts"),
        ),
        QUARANTINED,
        ("low/s1.ts",),
    ),
    # -- whole: never refused ---------------------------------------------------------------------------------
    Case(
        "lines that end with a lone CR",
        lambda files: files.update(
            {n: b.replace(b"\n", b"\r") for n, b in files.items() if n.endswith("m3u8")}
        ),
        ARCHIVED,
    ),
    Case(
        "lines that end with CR LF",
        lambda files: files.update(
            {n: b.replace(b"\n", b"\r\n") for n, b in files.items() if n.endswith("m3u8")}
        ),
        ARCHIVED,
    ),
    Case(
        "segments without EXTINF",
        put(
            "low/stream.m3u8",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ns0.ts\n#EXTINF:2,\ns1.ts\n#EXTINF:2,\ns2.ts\ns0.ts\n#EXT-X-ENDLIST\n",
        ),
        ARCHIVED,
    ),
    Case("empty captions", put("subs/c1.vtt", b""), ARCHIVED),
    Case("captions without a header", put("subs/c1.vtt", b"00:00.000 --> 00:01.000\nHello\n"), ARCHIVED),
    Case(
        "a list of captions that is empty",
        put("subs/subs.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-ENDLIST\n"),
        ARCHIVED,
        unreachable="subs/c",
    ),
    Case(
        "a gap",
        both(
            put(
                "low/stream.m3u8",
                media("s0.ts", "s1.ts", "s2.ts").replace(
                    b"#EXTINF:2,\ns1.ts", b"#EXTINF:2,\n#EXT-X-GAP \ns1.ts"
                ),
            ),
            drop("low/s1.ts"),
        ),
        ARCHIVED,
    ),
    Case(
        "AES-256",
        both(
            put(
                "low/stream.m3u8",
                media("s0.ts", "s1.ts", "s2.ts", tags='#EXT-X-KEY:METHOD=AES-256,URI="k.key"'),
            ),
            put("low/k.key", bytes(range(32))),
        ),
        ARCHIVED,
    ),
    Case(
        "a low-latency part that is gone",
        put("low/stream.m3u8", media("s0.ts", "s1.ts", "s2.ts", tags='#EXT-X-PART:DURATION=1,URI="p0.ts"')),
        ARCHIVED,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_tree_is_judged_rightly(case: Case) -> None:
    files = tree()
    case.change(files)
    served = {f"/v/{name}": body for name, body in files.items()}
    with Origin(served) as origin:
        origin.headers = lambda request: (
            Answer(200, b"", {"Content-Type": "text/html"}) if served[request.path] == HTML else None
        )

        outcome = judged(origin, "/v/master.m3u8", type="room-vod", **case.fields)

    assert outcome.state is case.state, outcome
    assert set(outcome.missing) == set(case.missing), outcome
    if case.state is LOST:
        assert outcome.stored == {}
        return
    for name, body in files.items():
        if name not in case.missing and not name.startswith(case.unreachable):
            assert outcome.stored[name] == body, name
    assert bool(outcome.doubts) is (case.state is QUARANTINED)


@pytest.mark.parametrize("grows", [False, True], ids=["stopped growing", "still grows"])
def test_a_playlist_without_an_end_is_kept_with_doubts_near_its_deadline(grows: bool) -> None:
    names = [f"s{number}.ts" for number in range(4)]
    files = {"/v/master.m3u8": media(*names, ends=False), **{f"/v/{name}": ts() for name in names}}
    with Origin(files) as origin:

        def rule(request: Request) -> Answer | None:
            if grows and request.path.endswith("m3u8"):
                name = f"s{len(names)}.ts"
                names.append(name)
                origin.files[f"/v/{name}"] = ts()
                origin.files["/v/master.m3u8"] = media(*names, ends=False)
            return None

        origin.rule = rule
        harness = Harness(origin, "/v/master.m3u8", type="room-vod", duration=2000)

        row = harness.until_settled()

    assert row.state is QUARANTINED, row
    assert RETENTION - timedelta(days=4) < harness.clock() - NOW < RETENTION
    assert set(harness.stored) >= {"master.m3u8", "s0.ts", "s3.ts"}
    harness.close()


def test_a_playlist_that_gets_its_end_is_archived() -> None:
    names = ["s0.ts", "s1.ts"]
    with Origin(
        {"/v/master.m3u8": media(*names, ends=False), **{f"/v/{name}": ts() for name in names}}
    ) as origin:
        harness = Harness(origin, "/v/master.m3u8", type="room-vod")
        harness.attempt()
        origin.files["/v/master.m3u8"] = media(*names)

        row = harness.until_settled()

    assert row.state is ARCHIVED
    harness.close()


def test_segments_of_two_versions_are_never_mixed() -> None:
    """The names and playlists stay, every segment is written again, while one attempt has half of them."""
    files = {f"/v/{name}": body for name, body in tree().items()}
    del files["/v/low/s2.ts"]
    with Origin(files) as origin:
        harness = Harness(origin, "/v/master.m3u8", type="room-vod")
        harness.attempt()
        new = {path: ts(b"9", 50) for path in [*files, "/v/low/s2.ts"] if path.endswith(".ts")}
        origin.files.update(new)

        row = harness.until_settled()

    assert row.state is ARCHIVED
    assert {f"/v/{path}": body for path, body in harness.stored.items() if path.endswith(".ts")} == new
    harness.close()


@pytest.mark.parametrize("status", [403, 503])
def test_a_thumbnail_that_was_busy_is_added_later_without_touching_the_rest(status: int) -> None:
    files = {f"/v/{name}": body for name, body in tree().items()} | {"/v/th/1.png": single("a.png")}
    with Origin(files) as origin:
        busy = [True]
        origin.rule = lambda request: Answer(status) if request.path.endswith(".png") and busy[0] else None
        harness = Harness(origin, "/v/master.m3u8", type="room-vod", thumbnails=[origin.url + "/v/th/1.png"])
        row = harness.until_settled()
        assert row.state is ARCHIVED
        assert "thumbnails/1.png could not be fetched yet and is tried again" in row.warnings[0]
        busy[0] = False
        segments = [request for request in origin.requests if request.path.endswith(".ts")]

        harness.clock.advance(timedelta(hours=7))
        assert reopen_ended(harness.ledger, harness.clock()) == 1
        row = harness.until_settled()

        assert [request for request in origin.requests if request.path.endswith(".ts")] == segments
    assert (row.state, row.warnings) == (ARCHIVED, ())
    assert harness.stored["thumbnails/1.png"] == single("a.png")
    harness.close()


def test_an_archived_asset_stays_archived_when_100ms_calls_it_failed_at_a_later_look() -> None:
    files = {f"/v/{name}": body for name, body in tree().items()}
    with Origin(files) as origin:
        origin.rule = lambda request: Answer(503) if request.path.endswith(".png") else None
        harness = Harness(origin, "/v/master.m3u8", type="room-vod", thumbnails=[origin.url + "/v/th/1.png"])
        harness.until_settled()
        harness.api.assets = [harness.asset.model_copy(update={"status": "failed"})]

        harness.clock.advance(timedelta(hours=7))
        assert reopen_ended(harness.ledger, harness.clock()) == 1
        row = harness.until_settled()

    assert row.state is ARCHIVED
    harness.close()


def test_an_archived_asset_stays_archived_when_the_look_for_its_thumbnail_fails() -> None:
    files = {f"/v/{name}": body for name, body in tree().items()}
    with Origin(files) as origin:
        origin.rule = lambda request: Answer(503) if request.path.endswith(".png") else None
        harness = Harness(origin, "/v/master.m3u8", type="room-vod", thumbnails=[origin.url + "/v/th/1.png"])
        harness.until_settled()
        origin.rule = lambda _request: Answer(503)

        harness.clock.advance(timedelta(hours=7))
        reopen_ended(harness.ledger, harness.clock())
        row = harness.until_settled()

    assert row.state is ARCHIVED
    assert harness.manifest
    assert row.stored_objects == len(harness.manifest.objects)
    harness.close()


def test_a_value_that_any_query_uses_is_not_in_the_copy() -> None:
    """The master uses the variable in a path, a child that imports it in a query."""
    master = (
        b'#EXTM3U\n#EXT-X-DEFINE:NAME="tok",VALUE="s3cr3t"\n'
        b"#EXT-X-STREAM-INF:BANDWIDTH=1\n{$tok}/stream.m3u8\n"
    )
    child = b'#EXTM3U\n#EXT-X-DEFINE:IMPORT="tok"\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ns.ts?k={$tok}\n#EXT-X-ENDLIST\n'
    files = {"/v/master.m3u8": master, "/v/s3cr3t/stream.m3u8": child, "/v/s3cr3t/s.ts": ts()}
    with Origin(files) as origin:
        outcome = judged(origin, "/v/master.m3u8", type="room-vod")

    assert outcome.state is ARCHIVED, outcome
    assert b'VALUE="s3cr3t"' not in outcome.stored["master.m3u8"]
    assert ts() in outcome.stored.values()


def test_children_below_an_empty_segment_of_a_path_are_asked_for_there() -> None:
    files = {f"/f//x//{name}": body for name, body in tree().items()}
    with Origin(files) as origin:
        outcome = judged(origin, "/f//x//master.m3u8", type="room-vod")

    assert outcome.state is ARCHIVED, outcome
    assert outcome.stored["low/s1.ts"] == files["/f//x//low/s1.ts"]


def test_parameters_that_tell_segments_apart_keep_them_apart() -> None:
    playlist = media("s.ts?md5=1", "s.ts?md5=2", "s.ts?md5=3")
    with Origin({"/v/master.m3u8": playlist}) as origin:

        def rule(request: Request) -> Answer | None:
            if request.path != "/v/s.ts":
                return None
            return Answer(200, ts(request.query["md5"][0].encode()), {"ETag": f'"{request.query["md5"][0]}"'})

        origin.rule = rule
        outcome = judged(origin, "/v/master.m3u8", type="room-vod")

    assert outcome.state is ARCHIVED, outcome
    bodies = {body for path, body in outcome.stored.items() if path.endswith(".ts")}
    assert bodies == {ts(b"1"), ts(b"2"), ts(b"3")}


def test_a_parameter_that_changes_at_every_request_does_not_change_names() -> None:
    number = iter(range(10**6))
    names: set[str] = set()
    with Origin({f"/v/s{n}.ts": ts(b"%d" % n) for n in range(3)}) as origin:

        def rule(request: Request) -> Answer | None:
            if not request.path.endswith("m3u8"):
                return None
            nonce = next(number)
            return Answer(200, media(*[f"s{n}.ts?session={nonce}" for n in range(3)]))

        origin.rule = rule
        harness = Harness(origin, "/v/master.m3u8", type="room-vod")
        origin.files.pop("/v/s2.ts")
        harness.attempt()
        names |= {info.key for info in harness.stores[0].list("recordings/")}
        origin.files["/v/s2.ts"] = ts(b"2")

        row = harness.until_settled()

    assert row.state is ARCHIVED, row
    listed = {f"{harness.manifest.folder}/{path}" for path in harness.stored} if harness.manifest else set()
    assert names <= listed, "nothing was left under a name that no manifest lists"
    harness.close()
