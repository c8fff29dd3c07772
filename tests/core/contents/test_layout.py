from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.core.contents.hls import signatures
from archiver.core.contents.hls.layout import TreeLayout, new_text, text_outside
from archiver.core.contents.hls.playlist import Playlist
from archiver.core.contents.hls.references import Reference
from archiver.transfer.urls import SecretUrl, resolve
from storage_backends.base import object_key

MASTER = SecretUrl("https://cdn.example/a/vod/master.m3u8?Policy=p")


def reference(uri: str) -> Reference:
    (found,) = Playlist(f"#EXTM3U\n#EXTINF:2,\n{uri}\n".encode()).references()
    return found


def path_of(url: str) -> str:
    return TreeLayout(MASTER).place(SecretUrl(resolve(MASTER.reveal(), url))).path


@pytest.mark.parametrize(
    "url",
    [
        "s/1.ts",
        "./s/1.ts",
        "/a/vod/s/1.ts",
        "https://cdn.example:443/a/vod/s/1.ts",
        "s/%31.ts",
        "x/../s/1.ts",
    ],
)
def test_a_file_below_the_root_keeps_its_path_however_it_is_named(url: str) -> None:
    assert path_of(url) == "s/1.ts"


@pytest.mark.parametrize(
    "url",
    [
        "../1.ts",
        "https://other.example/a/vod/1.ts",
        "https://cdn.example:8443/a/vod/1.ts",
        "1.ts?n=1",
        "a%2fb.ts",
        "a//b.ts",
        "//cdn.example//a/vod/1.ts",
        "seg",
    ],
)
def test_anything_else_goes_to_a_folder_of_its_own(url: str) -> None:
    folder, digits, _ = path_of(url).split("/")

    assert folder == "_ext"
    assert len(digits) == 8


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x.example/play", "master.m3u8"),
        ("https://x.example/p/index.M3U8", "index.M3U8"),
        ("https://x.example/", "master.m3u8"),
    ],
)
def test_the_master_has_the_extension_of_a_playlist(url: str, name: str) -> None:
    assert TreeLayout(SecretUrl(url)).master.path == name


def test_a_file_that_happens_to_be_called_as_the_master_is_stored_is_another_one() -> None:
    layout = TreeLayout(SecretUrl("https://x.example/p/play?id=1"))

    other = layout.place(SecretUrl("https://x.example/p/master.m3u8"))

    assert layout.master.path == "master.m3u8"
    assert other.path.startswith("_ext/")


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("X-Amz-Signature=s&X-Amz-Date=d&versionId=7", "versionId=7"),
        ("Policy=p&Signature=s&Key-Pair-Id=k", ""),
        ("sv=1&sr=b&sig=s&se=t&part=2", "part=2"),
        ("se=1&part=2", "se=1&part=2"),
        ("token=t&Expires=1&n=1&n=2", "n=1&n=2"),
        ("", ""),
    ],
)
def test_a_query_distinguishes_files_by_what_is_not_a_signature(query: str, kept: str) -> None:
    assert signatures.part(query).selects == kept


# -- parameters that may select a file -----------------------------------------------------------------------
def places(*uris: str, changing: frozenset[str] = frozenset(), playlist: str = "p.m3u8") -> list[str]:
    layout = TreeLayout(MASTER, changing)
    return [layout.place(MASTER.join(each), reference(each), playlist).path for each in uris]


DIFFERENT = {
    "md5": ["s.ts?md5=1", "s.ts?md5=2", "s.ts?md5=3"],
    "sig": ["s.ts?sig=1", "s.ts?sig=2", "s.ts?sig=3"],
    "verify": ["s.ts?verify=1", "s.ts?verify=2"],
    "token": ["s.ts?token=1", "s.ts?token=2"],
    "token and expires": ["s.ts?token=1&expires=9", "s.ts?token=2&expires=9"],
    "with it and without": ["s.ts", "s.ts?md5=1", "s.ts?md5=2"],
    "without it at the end": ["s.ts?md5=1", "s.ts"],
    "an unknown one": ["s.ts?n=1", "s.ts?n=2"],
    "both": ["s.ts?n=1&token=1", "s.ts?n=2&token=1", "s.ts?n=2&token=2"],
    "a path with an empty segment": ["x/a.ts", "x//a.ts", "x///a.ts", "/a/vod//x/a.ts"],
    "the master's path": ["master.m3u8", "master.m3u8?n=1"],
}


@pytest.mark.parametrize("uris", DIFFERENT.values(), ids=DIFFERENT)
def test_what_one_tree_names_differently_are_different_files(uris: list[str]) -> None:
    assert len(set(places(*uris))) == len(uris)


SAME = {
    "S3": ["s.ts?X-Amz-Signature=1&X-Amz-Date=1", "s.ts?X-Amz-Signature=2&X-Amz-Date=2", "s.ts"],
    "CloudFront": ["s.ts?Policy=1&Signature=1&Key-Pair-Id=k", "s.ts?Policy=2&Signature=2&Key-Pair-Id=k"],
    "Azure": ["s.ts?sv=1&sig=1&se=1", "s.ts?sv=1&sig=2&se=2"],
    "the same token": ["s.ts?token=1", "./s.ts?token=1", "s.ts?token=1#2"],
    "dots": ["s.ts", "x/../s.ts", "x//../../s.ts"],
    "percent-encoding": ["s.ts", "%73.ts"],
}


@pytest.mark.parametrize("uris", SAME.values(), ids=SAME)
def test_what_differs_in_its_signature_alone_is_one_file(uris: list[str]) -> None:
    assert set(places(*uris)) == {"s.ts"}


@pytest.mark.parametrize("name", ["token", "md5", "sig", "nonce"])
def test_another_signature_makes_no_other_names(name: str) -> None:
    """`nonce` is known by comparison."""
    changing = frozenset({"nonce"})

    first = places(f"a.ts?{name}=1", f"b.ts?{name}=2", f"b.ts?{name}=3", changing=changing)
    second = places(f"a.ts?{name}=4", f"b.ts?{name}=5", f"b.ts?{name}=6", changing=changing)

    assert first == second
    assert first[:2] == ["a.ts", "b.ts"]


def test_byte_ranges_of_one_path_are_one_file_in_one_playlist_and_not_in_two() -> None:
    layout = TreeLayout(MASTER)

    def ranged(uri: str, playlist: str) -> str:
        *_, found = Playlist(f"#EXTM3U\n#EXTINF:2,\n#EXT-X-BYTERANGE:1@0\n{uri}\n".encode()).references()
        return layout.place(MASTER.join(uri), found, playlist).path

    low = {ranged(f"all.ts?token={number}", "low.m3u8") for number in range(5)}
    high = {ranged(f"all.ts?token={number}", "high.m3u8") for number in range(5, 9)}

    assert (len(low), len(high)) == (1, 1)
    assert low != high


def test_what_a_reference_took_from_the_playlists_query_is_no_part_of_its_name() -> None:
    def path(secret: str) -> str:
        text = b'#EXTM3U\n#EXT-X-DEFINE:QUERYPARAM="q"\n#EXTINF:2,\na.ts?auth={$q}\n'
        (found,) = Playlist(text, query=f"q={secret}").references()
        return TreeLayout(MASTER).place(MASTER.join(found.uri), found, "p.m3u8").path

    assert path("1") == path("2") == "a.ts"


def test_a_master_below_empty_segments_has_its_files_beside_it() -> None:
    master = SecretUrl("https://cdn.example/f//x//master.m3u8")
    layout = TreeLayout(master)

    assert layout.place(master.join("s/1.ts")).path == "s/1.ts"
    assert layout.place(master.join("/f/x/s/1.ts")).path.startswith("_ext/")


def test_the_short_cut_and_the_long_way_know_of_each_other() -> None:
    layout = TreeLayout(MASTER)
    playlist = MASTER.join("s/p.m3u8")
    folder = layout.plain_folder(playlist, "s/p.m3u8")
    assert folder is not None

    plain = folder.place(reference("a.ts"))
    signed = layout.place(playlist.join("a.ts?md5=1"))
    earlier = layout.place(playlist.join("b.ts?md5=1"))
    later = folder.place(reference("b.ts"))

    assert plain is not None
    assert plain[1].path != signed.path
    assert earlier.path == "s/b.ts"
    assert later is None


@pytest.mark.parametrize(
    ("uri", "new"),
    [
        ("a.ts", None),
        ("https://h/a.ts", None),
        ("a.ts?sig=CANARY", b"a.ts"),
        ("https://u:CANARY@h/a.ts?sig=CANARY#x", b"https://h/a.ts"),
        ("HTTPS://h/a.ts?CANARY", b"HTTPS://h/a.ts"),
        ("?CANARY", b"."),
        ("ftp://u:CANARY@h/a.ts?sig=CANARY", b"ftp://h/a.ts"),
        ("skd://key?asset=1", None),
        ("data:text/plain,what?", None),
        ("a b.ts", b"a%20b.ts"),
    ],
)
def test_a_reference_that_stays_has_no_query(uri: str, new: bytes | None) -> None:
    assert text_outside(reference(uri)) == new


@pytest.mark.parametrize(
    ("uri", "from_path", "to_path", "new"),
    [
        ("a.ts", "p.m3u8", "a.ts", None),
        ("./x/../a.ts", "s/p.m3u8", "s/a.ts", None),
        ("../a.ts", "s/p.m3u8", "a.ts", None),
        ("a//b.ts", "p.m3u8", "a/b.ts", b"a/b.ts"),  # the text names another file
        ("x//../b.ts", "p.m3u8", "x/b.ts", None),
        ("../a.ts", "p.m3u8", "a.ts", b"a.ts"),  # the text leads out of the copy
        ("a.ts?x", "s/p.m3u8", "t/a.ts", b"../t/a.ts"),
    ],
)
def test_a_text_stays_only_where_it_names_the_very_file(
    uri: str, from_path: str, to_path: str, new: bytes | None
) -> None:
    assert new_text(reference(uri), from_path, to_path) == new


# -- any tree ------------------------------------------------------------------------------------------------
urls = st.one_of(
    st.from_regex(
        r"(\.{1,2}/|[a-z%~ .!]{0,4}/){0,3}[a-zA-Z0-9_.=!%-]{0,6}(\.(ts|mp4|m3u8))?"
        r"(\?([a-c=&]{0,5}|(md5|token)=[12]))?",
        fullmatch=True,
    ),
    st.from_regex(r"https://(cdn|x)\.example(:444)?/a/(vod/)?[a-b]{1,2}\.ts(\?n=[12])?", fullmatch=True),
).filter(lambda text: not text.startswith("//"))  # another host


@given(st.lists(urls, max_size=12))
def test_two_files_never_share_a_place_and_none_is_a_folder_of_another(references: list[str]) -> None:
    layout = TreeLayout(MASTER)

    places = [layout.place(SecretUrl(resolve(MASTER.reveal(), each))) for each in references]

    paths = {place.path for place in places}
    assert len(paths) == len({place.identity for place in places})
    for path in paths:
        assert object_key(path)
        assert not any(other.startswith(f"{path}/") for other in paths)


@given(
    urls.filter(lambda text: text.strip(" \t") and not text.startswith("#")),
    st.sampled_from(["s/p.m3u8", "p.m3u8", "a/b/p.m3u8"]),
)
def test_the_new_text_names_the_place_from_the_playlist(uri: str, stored_at: str) -> None:
    found = reference(uri)
    layout = TreeLayout(MASTER)
    playlist = SecretUrl(resolve(MASTER.reveal(), stored_at))
    place = layout.place(playlist.join(found.uri))

    text = new_text(found, stored_at, place.path)

    written = found.uri if text is None else text.decode()
    assert resolve(f"https://copy/folder/{stored_at}", written) == f"https://copy/folder/{place.path}"


@given(
    st.one_of(urls, st.from_regex(r"[A-Za-z0-9_=.-]{1,8}\.[A-Za-z0-9]{1,6}", fullmatch=True)).filter(
        lambda text: text.strip(" \t") and not text.startswith("#")
    ),
    st.sampled_from(["s/p.m3u8", "p.m3u8", "v1.0/b/p.m3u8", "_ext/p.m3u8", "thumbnails/p.m3u8"]),
)
def test_the_short_cut_leads_where_the_long_way_does(uri: str, stored_at: str) -> None:
    found = reference(uri)
    layout = TreeLayout(MASTER)
    playlist = SecretUrl(resolve(MASTER.reveal(), stored_at))
    place = layout.place(playlist)
    folder = layout.plain_folder(playlist, place.path)

    short = folder.place(found) if folder else None

    if short is not None:
        url = playlist.join(found.uri)
        assert short == (url, layout.place(url))
        assert new_text(found, place.path, short[1].path) is None


def test_the_short_cut_is_taken_for_a_plain_tree() -> None:
    folder = TreeLayout(MASTER).plain_folder(
        SecretUrl("https://cdn.example/a/vod/stream_0/s.m3u8?t=1"), "stream_0/s.m3u8"
    )

    assert folder is not None
    assert folder.place(reference("segment_00001.m4s")) is not None
    assert folder.place(reference("segment_00001.m4s?x=1")) is None
