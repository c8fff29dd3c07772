"""No query that may be a credential is left in a stored playlist, and what is stored still plays."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.core.contents.hls.credentials_in_text import credential_spans
from archiver.core.contents.hls.playlist import Playlist
from archiver.core.contents.hls.references import Role, rewrite


def stored(text: str, variables: dict[bytes, bytes] | None = None, query: str = "") -> tuple[str, Playlist]:
    """As a tree stores it: each reference with a query or variable is rewritten to a plain path."""
    playlist = Playlist(text.encode(), variables, query)
    plain = {
        reference.span: b"plain"
        for reference in playlist.references()
        if (not reference.verbatim or "?" in reference.uri)
        and not re.match("(skd|data):", reference.uri)
        and ":" not in reference.uri.partition("//")[0][6:]
    }
    return rewrite(playlist.data, {**plain, **playlist.neutralised}).decode(), playlist


def lines(*them: str) -> str:
    return "\n".join(["#EXTM3U", *them, ""])


KEPT_LINES = {
    "an unknown tag": ('#EXT-X-FOO:URL="https://h/p?sig=CANARY",A=1', '#EXT-X-FOO:URL="https://h/p",A=1'),
    "with commas in the query": ('#EXT-X-FOO:URL="https://h/p?sig=x,CANARY"', '#EXT-X-FOO:URL="https://h/p"'),
    "without quotes": ("#EXT-X-FOO:URL=https://h/p?sig=CANARY,A=1", "#EXT-X-FOO:URL=https://h/p,A=1"),
    "without quotes, commas in it": ("#EXT-X-FOO:https://h/p?sig=x,CANARY", "#EXT-X-FOO:https://h/p"),
    "two URLs": (
        '#EXT-X-FOO:URLS="https://h/p?CANARY,https://h/q?CANARY"',
        '#EXT-X-FOO:URLS="https://h/p,https://h/q"',
    ),
    "an ad": ('#EXT-X-DATERANGE:ID="a",X-ASSET-URI="https://h/p?k=CANARY"', None),
    "a list of ads": (
        '#EXT-X-DATERANGE:X-ASSET-LIST="l.json?CANARY"',
        '#EXT-X-DATERANGE:X-ASSET-LIST="l.json"',
    ),
    "a comment": ("# see https://h/p?token=CANARY for more", "# see https://h/p for more"),
    "a comment with a relative URL": ("# p.ts?X-Amz-Signature=CANARY", "# p.ts"),
    "no tag at all": ("#https://h/p?CANARY", "#https://h/p"),
    "without a scheme": ('#EXT-X-FOO:"//h/p?CANARY"', '#EXT-X-FOO:"//h/p"'),
    "a relative URL": ('#EXT-X-FOO:URL="p.ts?x=CANARY"', '#EXT-X-FOO:URL="p.ts"'),
    "a relative URL, no parameter": ('#EXT-X-FOO:URI="p.ts?CANARY"', '#EXT-X-FOO:URI="p.ts"'),
    "a title": ("#EXTINF:2,https://h/p?CANARY", "#EXTINF:2,https://h/p"),
    "a title with a relative URL": ("#EXTINF:2,p.ts?token=CANARY", "#EXTINF:2,p.ts"),
    "session data": ('#EXT-X-SESSION-DATA:DATA-ID="a",VALUE="https://h/p?sig=CANARY"', None),
    "beside a reference": (
        '#EXT-X-MAP:URI="i.mp4",X-FROM="https://h/i.mp4?sig=CANARY"',
        '#EXT-X-MAP:URI="i.mp4",X-FROM="https://h/i.mp4"',
    ),
    "the first line": ('#EXTM3U x-tvg-url="https://h/p?CANARY"', '#EXTM3U x-tvg-url="https://h/p"'),
    "beside a definition": (
        '#EXT-X-DEFINE:NAME="a",VALUE="b",X-C="https://h/p?CANARY"',
        '#EXT-X-DEFINE:NAME="a",VALUE="b",X-C="https://h/p"',
    ),
    "a password": ('#EXT-X-FOO:URL="https://user:CANARY@h/p"', '#EXT-X-FOO:URL="https://h/p"'),
    "both": ('#EXT-X-FOO:URL="https://u:CANARY@h/p?a=//CANARY@h"', '#EXT-X-FOO:URL="https://h/p"'),
    "a reference that lacks its second quote": ('#EXT-X-MAP:URI="i.mp4?CANARY', '#EXT-X-MAP:URI="plain'),
    "a line that is not loaded": ("stray.ts?sig=CANARY", "stray.ts"),
}


@pytest.mark.parametrize(("line", "kept"), KEPT_LINES.values(), ids=KEPT_LINES)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_query_in_text_that_is_kept_is_cut_out(line: str, kept: str | None, ending: str) -> None:
    around = ["#EXTM3U", "#EXT-X-STREAM-INF:BANDWIDTH=1", "a.m3u8"] if line[0] != "#" else ["#EXTM3U"]
    text = ending.join([*around, line, ""])

    copy, _ = stored(text)

    assert "CANARY" not in copy
    assert copy.startswith(ending.join(around))
    assert copy.endswith(ending)
    if kept is not None:
        assert copy == ending.join([*around, kept, ""])


@pytest.mark.parametrize(
    "line",
    [
        "#EXTINF:2,What? Why?",
        "#EXTINF:2,is 1+1?a=b true",
        "# what? no",
        "# is it at https://h/p?",
        "# mail@example.org",
        '#EXT-X-SESSION-DATA:DATA-ID="a",VALUE="Is it good? Yes, it = good"',
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="Really?"',
        "#EXT-X-BYTERANGE:100@0",
        '#EXT-X-FOO:URL="https://h/p#t=1"',
        '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://k?asset=1",KEYFORMAT="x"',
        '#EXT-X-KEY:METHOD=AES-128,URI="data:text/plain,what?x=1"',
    ],
)
def test_a_question_mark_that_begins_no_query_stays(line: str) -> None:
    copy, _ = stored(lines(line))

    assert copy == lines(line)


def test_a_line_of_question_marks_costs_no_time() -> None:
    hostile = lines('#EXT-X-FOO:"' + "?" * 500_000 + "//" * 100_000, "# " + "a?//b@" * 100_000)
    before = time.process_time()

    stored(hostile)

    assert time.process_time() - before < 5


@given(st.binary(max_size=80).map(lambda data: data.replace(b"\n", b" ")), st.booleans())
def test_credential_spans_are_in_order_and_do_not_overlap(line: bytes, in_tag: bool) -> None:
    at = 0
    for start, end in credential_spans(line, 0, len(line), in_tag=in_tag):
        assert at <= start < end <= len(line)
        at = end


# -- variables -----------------------------------------------------------------------------------------------
MASTER = ("#EXT-X-STREAM-INF:BANDWIDTH=1",)
DEFINED = '#EXT-X-DEFINE:NAME="v",VALUE="abc123"'
BLANK = '#EXT-X-DEFINE:NAME="v",VALUE=""'

VALUES = {
    "a segment's query": ([DEFINED, "#EXTINF:2,", "a.ts?token={$v}"], True),
    "a later query": ([DEFINED, "#EXTINF:2,", "{$v}/a.ts", "#EXTINF:2,", "a.ts?{$v}"], True),
    "a key's query": ([DEFINED, '#EXT-X-KEY:METHOD=AES-128,URI="k?t={$v}"'], True),
    "an unknown tag's query": ([DEFINED, '#EXT-X-FOO:URL="https://h/p?t={$v}"'], True),
    "behind another variable that holds the question mark": (
        ['#EXT-X-DEFINE:NAME="q",VALUE="?t"', DEFINED, "#EXTINF:2,", "a.ts{$q}{$v}"],
        True,
    ),
    "through another variable": (
        [DEFINED, '#EXT-X-DEFINE:NAME="w",VALUE="x{$v}"', "#EXTINF:2,", "a.ts?{$w}"],
        True,
    ),
    "paths alone": ([DEFINED, "#EXTINF:2,", "{$v}/a.ts?x=1"], False),
    "nothing, in a media playlist": ([DEFINED, "#EXTINF:2,", "a.ts"], False),
    "a variant's query": ([DEFINED, *MASTER, "a.m3u8?t={$v}"], True),
    "paths alone, in a master": ([DEFINED, *MASTER, "{$v}/a.m3u8"], False),
    "names, in a master": (
        [DEFINED, '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="{$v}"', *MASTER, "a.m3u8"],
        False,
    ),
    "nothing, in a master: perhaps a child's query": ([DEFINED, *MASTER, "a.m3u8"], True),
    "an unknown tag, in a master": ([DEFINED, "#EXT-X-FOO:{$v}", *MASTER, "a.m3u8"], True),
}


@pytest.mark.parametrize(("text", "is_blanked"), VALUES.values(), ids=VALUES)
def test_a_value_is_blanked_when_it_may_be_used_in_a_query(text: list[str], is_blanked: bool) -> None:
    copy, _ = stored(lines(*text))

    assert (BLANK in copy, "abc123" in copy) == (is_blanked, not is_blanked)


def test_a_child_lists_which_imported_values_its_queries_use() -> None:
    text = lines(DEFINED, *MASTER, "{$v}/a.m3u8")
    _, parent = stored(text)
    _, child = stored(
        lines('#EXT-X-DEFINE:IMPORT="v"', "#EXTINF:2,", "a.ts?t={$v}"), variables=dict(parent.variables)
    )

    parent.blank(child.used_in_queries)

    assert BLANK in rewrite(parent.data, parent.neutralised).decode()


def test_an_importing_child_plays_without_the_value() -> None:
    parent = Playlist(lines(DEFINED, *MASTER, "a.m3u8").encode())
    list(parent.references())
    child = lines('#EXT-X-DEFINE:IMPORT="v"', "#EXTINF:2,", "{$v}/a.ts?t={$v}")

    playlist = Playlist(child.encode(), parent.variables)
    (reference,) = playlist.references()

    assert (reference.uri, reference.verbatim) == ("abc123/a.ts?t=abc123", False)
    assert playlist.neutralised == {}


def test_a_key_of_another_system_keeps_what_a_variable_says() -> None:
    copy, _ = stored(
        lines('#EXT-X-DEFINE:IMPORT="v"', '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://{$v}",KEYFORMAT="x"'),
        variables={b"v": b"abc123"},
    )

    assert 'URI="skd://abc123"' in copy


def test_variables_may_be_made_of_others() -> None:
    playlist = Playlist(
        lines(
            '#EXT-X-DEFINE:NAME="a",VALUE="x/"',
            '#EXT-X-DEFINE:NAME="b",VALUE="{$a}y"',
            "#EXTINF:2,",
            "{$b}/s.ts",
        ).encode()
    )

    assert [each.uri for each in playlist.references()] == ["x/y/s.ts"]


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("a.ts?auth={$q}", ("auth",)),
        ("a.ts?part=1&auth=x{$q}", ("auth",)),
        ("a.ts?part={$own}", ()),
        ("{$q}/a.ts?part=1", ()),
        ("a.ts?{$q}", ("k", "l")),
        ("a.ts?x={$made}", ("x",)),
    ],
)
def test_values_from_the_playlists_own_query_are_listed(uri: str, names: tuple[str, ...]) -> None:
    text = lines(
        '#EXT-X-DEFINE:QUERYPARAM="q"',
        '#EXT-X-DEFINE:NAME="own",VALUE="1"',
        '#EXT-X-DEFINE:NAME="made",VALUE="-{$q}"',
        "#EXTINF:2,",
        uri,
    )
    query = "q=k%3D1%26l%3D2" if uri == "a.ts?{$q}" else "q=CANARY"
    playlist = Playlist(text.encode(), query=query)

    (reference,) = playlist.references()

    assert reference.role is Role.SEGMENT
    assert reference.from_query == names


def test_values_imported_from_the_masters_query_are_listed_too() -> None:
    parent = Playlist(lines('#EXT-X-DEFINE:QUERYPARAM="q"', *MASTER, "a.m3u8").encode(), query="q=1")
    list(parent.references())
    child = Playlist(
        lines('#EXT-X-DEFINE:IMPORT="q"', "#EXTINF:2,", "a.ts?s={$q}").encode(), parent.variables
    )

    assert [each.from_query for each in child.references()] == [("s",)]
