from __future__ import annotations

import base64
import json

import m3u8
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.core.contents.hls.playlist import MAX_REMARKS, Playlist, is_unfinished
from archiver.core.contents.hls.references import Role, rewrite
from archiver.core.errors import BadContents


def read(data: bytes | str, **context: object) -> tuple[Playlist, list[tuple[Role, str]]]:
    playlist = Playlist(data if isinstance(data, bytes) else data.encode(), **context)  # type: ignore[arg-type]
    return playlist, [(reference.role, reference.uri) for reference in playlist.references()]


def master(*lines: str) -> str:
    return "\n".join(["#EXTM3U", *lines, ""])


def media(*lines: str) -> str:
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", *lines, "#EXT-X-ENDLIST", ""])


def test_every_carrier_of_a_uri_in_a_master_is_found() -> None:
    _, found = read(
        master(
            '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="with, comma=and equals",URI="audio/a.m3u8"',
            '#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID="cc",INSTREAM-ID="CC1",NAME="no uri"',
            '#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES,URI="skd://x",KEYFORMAT="com.apple.streamingkeydelivery"',
            '#EXT-X-SESSION-DATA:DATA-ID="com.example.chapters",URI="chapters.json"',
            '#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS="avc1.4d,mp4a"',
            "# a comment between the two",
            "",
            "stream_0/stream.m3u8",
            '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="iframes.m3u8"',
            '#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=1,URI="images.m3u8"',
        )
    )

    assert found == [
        (Role.RENDITION, "audio/a.m3u8"),
        (Role.KEY, "skd://x"),
        (Role.DATA, "chapters.json"),
        (Role.VARIANT, "stream_0/stream.m3u8"),
        (Role.RENDITION, "iframes.m3u8"),
        (Role.RENDITION, "images.m3u8"),
    ]


def test_every_carrier_of_a_uri_in_a_media_playlist_is_found() -> None:
    playlist, found = read(
        media(
            '#EXT-X-MAP:URI="init.mp4",BYTERANGE="800@0"',
            '#EXT-X-KEY:METHOD=AES-128,URI="https://keys.example/k?id=1,2",IV=0x01',
            "#EXTINF:2.0,a title, with commas",
            "#EXT-X-BYTERANGE:100@0",
            "all.mp4",
            '#EXT-X-PART:DURATION=0.5,URI="part.mp4"',
            '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="next.mp4"',
            '#EXT-X-RENDITION-REPORT:URI="../other.m3u8",LAST-MSN=2',
        )
    )

    assert found == [
        (Role.INIT, "init.mp4"),
        (Role.KEY, "https://keys.example/k?id=1,2"),
        (Role.SEGMENT, "all.mp4"),
        (Role.PART, "part.mp4"),
        (Role.LINK, "next.mp4"),
        (Role.LINK, "../other.m3u8"),
    ]
    assert (playlist.segments, playlist.duration_seconds) == (1, 2.0)


@pytest.mark.parametrize(
    ("attributes", "key_bytes", "encrypts"),
    [
        ("METHOD=AES-128", 16, True),
        ('METHOD=AES-128,KEYFORMAT="identity"', 16, True),
        ("METHOD=AES-256", 32, True),
        ("METHOD=AES-256-CTR", 32, True),
        ("METHOD=AES-256-GCM", 32, True),
        ("METHOD=SAMPLE-AES", 16, False),
        ("METHOD=SAMPLE-AES-CTR", 16, False),
        ('METHOD=SAMPLE-AES,KEYFORMAT="com.example"', None, False),
        ('METHOD=AES-256,KEYFORMAT="com.example"', None, True),
    ],
)
def test_a_method_decides_the_length_of_the_key_and_whether_whole_files_are_encrypted(
    attributes: str, key_bytes: int | None, encrypts: bool
) -> None:
    key, segment = Playlist(
        media(f'#EXT-X-KEY:{attributes},URI="a.key"', "#EXTINF:2,", "s.ts").encode()
    ).references()

    assert key.key_bytes == key_bytes
    assert segment.encrypted is encrypts


def test_what_follows_a_key_is_known_to_be_encrypted() -> None:
    segment = ("#EXTINF:2,", "s.ts")
    playlist = Playlist(
        media(
            *segment, '#EXT-X-KEY:METHOD=AES-128,URI="a.key"', *segment, "#EXT-X-KEY:METHOD=NONE", *segment
        ).encode()
    )

    segments = [each for each in playlist.references() if each.role is Role.SEGMENT]

    assert [each.encrypted for each in segments] == [False, True, False]


@pytest.mark.parametrize("tag", ["#EXT-X-GAP", "#EXT-X-GAP ", "#EXT-X-GAP\t", " #EXT-X-GAP", "#EXT-X-GAP\r"])
def test_a_gap_belongs_to_the_next_segment_alone(tag: str) -> None:
    playlist = Playlist(media("#EXTINF:2,", tag, "missing.ts", "#EXTINF:2,", "there.ts").encode())

    assert [(each.uri, each.gap) for each in playlist.references()] == [
        ("missing.ts", True),
        ("there.ts", False),
    ]
    assert playlist.gaps == 1


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1c"])
def test_only_cr_and_lf_end_a_line(separator: str) -> None:
    title = f"#EXTINF:2,one{separator}still the title"

    _, found = read(media(title, "a.ts"))

    assert found == [(Role.SEGMENT, "a.ts")]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf#EXTM3U\r\n#EXTINF:2,\r\na.ts\r\n",
        b"#EXTM3U\n# caf\xe9 in latin-1\n#EXTINF:2,\xe9\n  a.ts \t\n",
        b"#EXTM3U\n#EXTINF:2,\n\n\na.ts",
    ],
)
def test_bom_crlf_latin_1_and_blanks_do_not_hide_a_segment(data: bytes) -> None:
    playlist = Playlist(data)

    (reference,) = playlist.references()

    assert data[slice(*reference.span)] == b"a.ts"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#EXTM3U|#EXT-X-TARGETDURATION:2|a.ts|b.ts", ["segment a.ts", "segment b.ts"]),  # hls.js loads them
        ("#EXTM3U|#EXTINF:2,|a.ts|b.ts", ["segment a.ts", "segment b.ts"]),
        ("#EXTM3U|a.ts|b.mp4", ["segment a.ts", "segment b.mp4"]),  # a plain list
        ("#EXTM3U|low.m3u8|high.M3U8?t=1", ["variant playlist low.m3u8", "variant playlist high.M3U8?t=1"]),
        ("#EXTM3U|#EXT-X-MEDIA-SEQUENCE:0|a.ts", ["segment a.ts"]),
        ("#EXTM3U|#EXT-X-STREAM-INF:BANDWIDTH=1|a.m3u8|b.m3u8", ["variant playlist a.m3u8"]),
        ('#EXTM3U|b.m3u8|#EXT-X-MEDIA:TYPE=AUDIO,URI="a.m3u8"', ["rendition playlist a.m3u8"]),
        ("#EXTM3U|b.m3u8|#EXT-X-STREAM-INF:BANDWIDTH=1|a.m3u8", ["variant playlist a.m3u8"]),
        (
            "#EXTM3U|#EXT-X-TARGETDURATION:2|#EXT-X-STREAM-INF:BANDWIDTH=1|a.m3u8|b.ts",
            ["variant playlist a.m3u8", "segment b.ts"],
        ),
        (
            "#EXTM3U|# #EXTINF:2, in a comment|#EXT-X-STREAM-INF:BANDWIDTH=1|a.m3u8|b.ts",
            ["variant playlist a.m3u8"],
        ),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_line_that_no_tag_introduces_counts_where_players_load_it(
    text: str, found: list[str], ending: str
) -> None:
    references = list(Playlist(text.replace("|", ending).encode()).references())

    assert [f"{each.role.value} {each.uri}" for each in references] == found


def test_a_title_ends_at_a_lone_carriage_return_among_line_feeds() -> None:
    _, found = read("#EXTM3U\n#EXTINF:2,title\rone.ts\n#EXTINF:2,\ntwo.ts\n")

    assert found == [(Role.SEGMENT, "one.ts"), (Role.SEGMENT, "two.ts")]


@pytest.mark.parametrize(
    ("lines", "segments", "has_media", "is_empty"),
    [
        ([], 0, False, True),
        (["#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXT-X-ENDLIST"], 0, False, True),
        (["#EXTINF:2,"], 0, False, True),
        (["#EXTINF:2,", "#EXT-X-GAP", "a.ts"], 1, False, True),
        (["#EXTINF:2,", "#EXT-X-GAP", "a.ts", "b.ts"], 2, True, False),
        (["a.ts"], 1, True, False),
        (["#EXT-X-STREAM-INF:BANDWIDTH=1", "a.m3u8"], 0, False, False),
        (["#EXT-X-STREAM-INF:BANDWIDTH=1"], 0, False, True),
        (['#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="a.m3u8"'], 0, False, True),
        (["#EXT-X-ERROR: gone"], 0, False, True),
    ],
)
def test_a_playlist_without_media_or_variants_is_empty(
    lines: list[str], segments: int, has_media: bool, is_empty: bool
) -> None:
    playlist, _ = read(master(*lines))

    assert (playlist.segments, playlist.has_media, playlist.is_empty) == (segments, has_media, is_empty)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("#EXT-X-ERROR", "EXT-X-ERROR"),
        ("#EXT-X-ERROR:", "EXT-X-ERROR"),
        ("#EXT-X-ERROR: no such stream", "no such stream"),
        ("#EXT-X-ERROR:CODE=404,URL=https://h/p?sig=CANARY", "CODE=404,URL=https://h/p"),
        ('#EXT-X-ERROR-MESSAGE:"no such stream"', "no such stream"),
        ("#EXT-X-Error: no", "no"),
        ("#EXT-ERROR: no", "no"),
        ("#EXT-X-STREAM-ERROR: no", "no"),
        ("#EXT-X-ERROR:" + "x" * 10_000, "x" * 200),
        ("#EXT-X-TERRORS: no", None),
        ("# ERROR correction is on", None),
        ("#EXT-X-VERSION:3", None),
    ],
)
def test_an_error_in_place_of_a_recording_is_reported(line: str, error: str | None) -> None:
    playlist, _ = read(master(line))

    assert playlist.error == error


def test_a_rendition_has_its_type() -> None:
    playlist = Playlist(
        master(
            '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="TYPE=AUDIO",URI="s.m3u8"',
            '#EXT-X-MEDIA:URI="a.m3u8",TYPE=AUDIO,GROUP-ID="a",NAME="a"',
            '#EXT-X-MEDIA:GROUP-ID="a",NAME="a",URI="n.m3u8"',
            '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="i.m3u8"',
            '#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=1,URI="p.m3u8"',
            "#EXT-X-STREAM-INF:BANDWIDTH=1",
            "v.m3u8",
        ).encode()
    )

    types = [each.media_type for each in playlist.references()]

    assert types == ["SUBTITLES", "AUDIO", "", "I-FRAME", "IMAGE", ""]


def test_byte_ranges_of_a_file_are_distinguished_from_whole_files() -> None:
    playlist = Playlist(
        media(
            '#EXT-X-MAP:URI="i.mp4",BYTERANGE="8@0"',
            '#EXT-X-MAP:URI="j.mp4"',
            "#EXTINF:2,",
            "#EXT-X-BYTERANGE:8@8",
            "a.mp4",
            "#EXTINF:2,",
            "b.mp4",
        ).encode()
    )

    assert [each.ranged for each in playlist.references()] == [True, False, True, False]


def test_bytes_that_a_url_cannot_hold_are_percent_encoded() -> None:
    playlist = Playlist(b"#EXTM3U\n#EXTINF:2,\ncaf\xe9 \xc3\xa9.ts\n")

    (reference,) = playlist.references()

    assert (reference.uri, reference.verbatim) == ("caf%E9%20%C3%A9.ts", False)


@pytest.mark.parametrize("data", [b"", b"<html>", b"#EXTINF:2,\na.ts", b"\n#EXTM3U"])
def test_what_does_not_begin_as_a_playlist_is_none(data: bytes) -> None:
    with pytest.raises(BadContents, match="no playlist"):
        Playlist(data)


def test_variables_are_expanded_wherever_they_come_from() -> None:
    _, found = read(
        media(
            '#EXT-X-DEFINE:NAME="dir",VALUE="layer one"',
            '#EXT-X-DEFINE:IMPORT="host"',
            '#EXT-X-DEFINE:QUERYPARAM="sig"',
            '#EXT-X-MAP:URI="{$dir}/init.mp4"',
            "#EXTINF:2,",
            "{$host}/{$dir}/a.ts?sig={$sig}",
        ),
        variables={b"host": b"https://cdn.example"},
        query="other=1&sig=a%2Fb",
    )

    assert found == [
        (Role.INIT, "layer%20one/init.mp4"),
        (Role.SEGMENT, "https://cdn.example/layer%20one/a.ts?sig=a/b"),
    ]


def test_an_undefined_variable_is_refused() -> None:
    with pytest.raises(BadContents, match="'sig'"):
        read(media('#EXT-X-DEFINE:IMPORT="sig"', "#EXTINF:2,", "a.ts?{$sig}"))


def test_a_query_never_stays_in_a_definition() -> None:
    text = media(
        '#EXT-X-DEFINE:QUERYPARAM="sig"',
        '#EXT-X-DEFINE:NAME="auth",VALUE="?token=secret"',
        '#EXT-X-DEFINE:NAME="lang",VALUE="en"',
    ).encode()
    playlist, _ = read(text, query="sig=secret")

    copy = rewrite(text, playlist.neutralised)

    assert b"secret" not in copy
    assert b'#EXT-X-DEFINE:NAME="sig",VALUE=""\n' in copy
    assert b'#EXT-X-DEFINE:NAME="auth",VALUE=""\n' in copy
    assert b'#EXT-X-DEFINE:NAME="lang",VALUE="en"\n' in copy


def test_content_steering_makes_no_outside_request() -> None:
    text = (
        b'#EXTM3U\n#EXT-X-CONTENT-STEERING:SERVER-URI="https://steer.example/x?t=1",PATHWAY-ID="b"\n'
        b'#EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID="a"\na.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1,PATHWAY-ID="b"\nb.m3u8\n'
    )
    playlist, _ = read(text)

    copy = rewrite(text, playlist.neutralised).decode()

    encoded = copy.split('SERVER-URI="data:application/json;base64,')[1].split('"')[0]
    assert json.loads(base64.b64decode(encoded)) == {
        "VERSION": 1,
        "TTL": 86400,
        "PATHWAY-PRIORITY": ["a", "b"],
    }
    assert ',PATHWAY-ID="b"\n' in copy


def test_ads_and_unknown_tags_are_noted_without_their_query_and_kept() -> None:
    playlist, found = read(
        master(
            '#EXT-X-DATERANGE:ID="ad",X-ASSET-URI="https://ads.example/a.m3u8?user=1"',
            '#EXT-X-VENDOR-THING:URI="https://vendor.example/x?key=1"',
            "#EXT-X-STREAM-INF:BANDWIDTH=1",
            "a.m3u8",
            "stray.m3u8",
        )
    )

    assert found == [(Role.VARIANT, "a.m3u8")]
    assert len(playlist.remarks) == 3
    assert "https://ads.example/a.m3u8" in playlist.remarks[0]
    assert "EXT-X-VENDOR-THING" in playlist.remarks[1]
    assert not any("user=1" in remark or "key=1" in remark for remark in playlist.remarks)


def test_remarks_have_a_limit() -> None:
    playlist, _ = read(master("#EXT-X-STREAM-INF:BANDWIDTH=1", "a.m3u8", *["stray.m3u8"] * 1000))

    assert len(playlist.remarks) == MAX_REMARKS


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\r\r\n"])
def test_a_playlist_is_unfinished_until_its_endlist(ending: str) -> None:
    def lines(*them: str) -> bytes:
        return "".join(line + ending for line in them).encode()

    assert is_unfinished(lines("#EXTM3U", "#EXTINF:2,", "a.ts"))
    assert is_unfinished(lines("#EXTM3U", "#EXTINF:2,no #EXT-X-ENDLIST yet", "a.ts"))
    assert not is_unfinished(lines("#EXTM3U", "#EXTINF:2,", "a.ts", " #EXT-X-ENDLIST"))
    assert not is_unfinished(lines("#EXTM3U", "#EXT-X-STREAM-INF:BANDWIDTH=1", "a.m3u8"))


def test_overlapping_spans_are_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="overlap"):
        rewrite(b"abcdef", {(0, 3): b"x", (2, 4): b"y"})


# -- any tree ------------------------------------------------------------------------------------------------
uris = st.from_regex(
    r"[a-z]{1,8}(/[a-z0-9_]{1,6}){0,2}\.(ts|m4s|mp4)(\?[a-z]=[a-z0-9,=]{0,9})?", fullmatch=True
)
titles = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
endings = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\r\n", " \r", "\t\n\r"])


@st.composite
def media_playlists(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2"]
    expected: list[str] = []
    for uri in draw(st.lists(uris, max_size=8)):
        kind = draw(st.sampled_from(["segment", "map", "key", "comment"]))
        if kind == "map":
            lines.append(f'#EXT-X-MAP:URI="{uri}"')
        elif kind == "key":
            lines.append(f'#EXT-X-KEY:METHOD=AES-128,IV=0x1,URI="{uri}",KEYFORMAT="identity"')
        elif kind == "comment":
            lines.append(f"# {draw(titles)}")
            continue
        expected.append(uri)
        if kind == "segment":
            lines += [f"#EXTINF:2.0,{draw(titles)}", uri]
    lines.append("#EXT-X-ENDLIST")
    mixed = draw(st.lists(endings, min_size=1, max_size=3))
    return "".join(line + mixed[at % len(mixed)] for at, line in enumerate(lines)).encode(), expected


@given(media_playlists())
def test_any_playlist_gives_its_references_in_order(made: tuple[bytes, list[str]]) -> None:
    data, expected = made

    assert [reference.uri for reference in Playlist(data).references()] == expected
    assert not is_unfinished(data)


@given(media_playlists(), st.randoms(use_true_random=False), st.binary(max_size=20))
def test_every_byte_outside_the_replaced_spans_stays(
    made: tuple[bytes, list[str]], pick: object, new: bytes
) -> None:
    data, _ = made
    playlist = Playlist(data)
    spans = [reference.span for reference in playlist.references()]
    chosen = [span for span in [*spans, *playlist.neutralised] if pick.random() < 0.5]  # type: ignore[attr-defined]

    copy = rewrite(data, dict.fromkeys(chosen, new))

    if not chosen:
        assert copy is data
    kept, at = [], 0
    for start, end in sorted(chosen):
        kept.append(data[at:start])
        at = end
    assert copy == new.join([*kept, data[at:]])


@given(st.lists(st.tuples(uris, st.integers(1, 10**7)), min_size=1, max_size=6), st.lists(uris, max_size=3))
def test_an_independent_parser_finds_the_same_references(
    variants: list[tuple[str, int]], renditions: list[str]
) -> None:
    text = "#EXTM3U\n"
    for number, uri in enumerate(renditions):
        text += f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="n{number}, x=y",URI="{uri}"\n'
    for uri, bandwidth in variants:
        text += f'#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},CODECS="avc1.4d,mp4a.40.2",AUDIO="a"\n{uri}\n'

    oracle = m3u8.loads(text)

    _, found = read(text)
    assert [uri for role, uri in found if role is Role.VARIANT] == [each.uri for each in oracle.playlists]
    assert [uri for role, uri in found if role is Role.RENDITION] == [each.uri for each in oracle.media]
