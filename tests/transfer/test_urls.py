"""A reference means what RFC 3986 says, and URLs made without being parsed say what parsing them would."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.transfer import urls
from archiver.transfer.errors import SourceNotAllowed
from archiver.transfer.urls import SecretUrl, resolve, without_dots

BASES = st.sampled_from(
    [
        "https://cdn.example.com/a/b/index.m3u8",
        "https://cdn.example.com/a/b/index.m3u8?token=x/y#part",
        "https://CDN.example.com:8443/ä b/index.m3u8?e=1&s=ü",
        "http://127.0.0.1:9000/index.m3u8",
        "https://[2001:db8::1]/x/",
    ]
)
PLAIN_NAMES = st.from_regex(r"[A-Za-z0-9_=-]{1,20}\.[a-z][a-z0-9]{1,3}", fullmatch=True)
QUERIES = st.from_regex(r"[a-zA-Z0-9_~.%-]{1,9}=[a-zA-Z0-9_~/ü-]{0,9}(&k=v)?", fullmatch=True)


@given(BASES, PLAIN_NAMES)
def test_a_plain_file_beside_it_is_what_joining_its_name_gives(base: str, name: str) -> None:
    beside, joined = SecretUrl(base).beside(name), SecretUrl(base).join(name)

    assert (beside.reveal(), beside.origin, beside.target) == (joined.reveal(), joined.origin, joined.target)


@given(BASES, QUERIES)
def test_with_more_parameters_it_is_what_parsing_the_longer_text_gives(base: str, more: str) -> None:
    longer = SecretUrl(base).with_query(more)

    parsed = SecretUrl(longer.reveal())
    assert longer.reveal().endswith(more)
    assert (longer.origin, longer.target) == (parsed.origin, parsed.target)


@given(
    st.sampled_from(["http", "https"]),
    st.text("ab1.-_@:[]A\u00e9", max_size=12),
    st.sampled_from(["", ":", ":0", ":1", ":080", ":443", ":65535", ":65536", ":99999"]),
    st.text('/a.%2?=&#\\"~\u00e9', max_size=8),
)
def test_plain_urls_are_read_as_all_others_are(scheme: str, host: str, port: str, rest: str) -> None:
    """The short way and the long one: `_PLAIN` that matches nothing leaves only that."""
    text = f"{scheme}://{host}{port}{rest}"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(urls, "_PLAIN", re.compile("(?!)"))
        expected = parts_of(text)
    assert parts_of(text) == expected


def parts_of(text: str) -> tuple[object, object]:
    def told(ask: Callable[[], object]) -> object:
        try:
            return ask()
        except (SourceNotAllowed, ValueError) as error:
            return type(error)

    url = SecretUrl(text)
    return told(lambda: url.origin), told(lambda: url.target)


def test_an_empty_query_is_kept() -> None:
    assert SecretUrl("https://example.com/a?").with_query("k=v").target == "/a?k=v"


RFC_3986_5_4 = {
    # 5.4.1, normal examples
    "g:h": "g:h",
    "g": "http://a/b/c/g",
    "./g": "http://a/b/c/g",
    "g/": "http://a/b/c/g/",
    "/g": "http://a/g",
    "//g": "http://g",
    "?y": "http://a/b/c/d;p?y",
    "g?y": "http://a/b/c/g?y",
    "#s": "http://a/b/c/d;p?q#s",
    "g#s": "http://a/b/c/g#s",
    "g?y#s": "http://a/b/c/g?y#s",
    ";x": "http://a/b/c/;x",
    "g;x": "http://a/b/c/g;x",
    "g;x?y#s": "http://a/b/c/g;x?y#s",
    "": "http://a/b/c/d;p?q",
    ".": "http://a/b/c/",
    "./": "http://a/b/c/",
    "..": "http://a/b/",
    "../": "http://a/b/",
    "../g": "http://a/b/g",
    "../..": "http://a/",
    "../../": "http://a/",
    "../../g": "http://a/g",
    # 5.4.2, abnormal examples
    "../../../g": "http://a/g",
    "../../../../g": "http://a/g",
    "/./g": "http://a/g",
    "/../g": "http://a/g",
    "g.": "http://a/b/c/g.",
    ".g": "http://a/b/c/.g",
    "g..": "http://a/b/c/g..",
    "..g": "http://a/b/c/..g",
    "./../g": "http://a/b/g",
    "./g/.": "http://a/b/c/g/",
    "g/./h": "http://a/b/c/g/h",
    "g/../h": "http://a/b/c/h",
    "g;x=1/./y": "http://a/b/c/g;x=1/y",
    "g;x=1/../y": "http://a/b/c/y",
    "g?y/./x": "http://a/b/c/g?y/./x",
    "g?y/../x": "http://a/b/c/g?y/../x",
    "g#s/./x": "http://a/b/c/g#s/./x",
    "g#s/../x": "http://a/b/c/g#s/../x",
    "http:g": "http://a/b/c/g",  # "for backward compatibility", as browsers do
}


@pytest.mark.parametrize(("reference", "meaning"), RFC_3986_5_4.items())
def test_a_reference_means_what_the_rfc_lists(reference: str, meaning: str) -> None:
    assert resolve("http://a/b/c/d;p?q", reference) == meaning


@pytest.mark.parametrize(
    ("base", "reference", "meaning"),
    [
        ("https://h/f//x//m.m3u8", "s/1.ts", "https://h/f//x//s/1.ts"),
        ("https://h/f/m.m3u8", "a//b.ts", "https://h/f/a//b.ts"),
        ("https://h/f//m.m3u8", "../1.ts", "https://h/f/1.ts"),
        ("https://h/f/m.m3u8", "a//../b.ts", "https://h/f/a/b.ts"),
        ("https://h/f/m.m3u8", "/a//b.ts", "https://h/a//b.ts"),
        ("https://h/f/m.m3u8", "https://i//a/./b.ts", "https://i//a/b.ts"),
        ("https://h//m.m3u8", "a.ts", "https://h//a.ts"),
        ("https://h//m.m3u8", "..", "https://h/"),
        ("https://h", "a.ts", "https://h/a.ts"),
        ("https://h?q", "a.ts", "https://h/a.ts"),
        ("https://h/a?b/c", "d", "https://h/d"),
        ("https://h/a#b/c", "", "https://h/a"),
        ("https://h/a/b", "c:d", "c:d"),
        ("https://h/a/b", "./c:d", "https://h/a/c:d"),
        ("https://h/a/b", "//i:8443/c?d", "https://i:8443/c?d"),
        ("https://h/a/b", "x y|\u00e9.ts", "https://h/a/x y|\u00e9.ts"),
    ],
)
def test_empty_segments_are_kept_and_the_rest_is_as_ever(base: str, reference: str, meaning: str) -> None:
    assert resolve(base, reference) == meaning
    assert SecretUrl(base).join(f" {reference}\n").reveal() == meaning


def by_the_book(path: str) -> str:
    """RFC 3986, section 5.2.4, step by step."""
    output = ""
    while path:
        if path.startswith(("../", "./")):
            path = path.partition("/")[2]
        elif path.startswith("/./") or path == "/.":
            path = "/" + path[3:]
        elif path.startswith("/../") or path == "/..":
            path, output = "/" + path[4:], output.rpartition("/")[0]
        elif path in (".", ".."):
            path = ""
        else:
            end = path.find("/", 1) if "/" in path[1:] else len(path)
            path, output = path[end:], output + path[:end]
    return output


@given(st.lists(st.sampled_from(["", "a", ".", "..", "...", "b.c"]), max_size=8))
def test_dot_segments_go_as_the_rfc_takes_them_out(segments: list[str]) -> None:
    path = "/" + "/".join(segments)

    assert without_dots(path) == by_the_book(path)


@pytest.mark.parametrize("reference", ["//[bad/a.ts", "https://[::1/a.ts"])
def test_a_reference_that_cannot_be_parsed_is_refused(reference: str) -> None:
    with pytest.raises(SourceNotAllowed):
        SecretUrl("https://h/a").join(reference)


@pytest.mark.parametrize("reference", ["http:a.ts", "///a.ts", "https:///a.ts", "a\\b.ts", "a\nb.ts"])
def test_what_parsers_read_differently_is_never_asked_for(reference: str) -> None:
    with pytest.raises(SourceNotAllowed):
        _ = SecretUrl("https://h/a").join(reference).origin
