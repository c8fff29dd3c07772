from __future__ import annotations

from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiving.contents.layout import TreeLayout, meaningful_query, new_text
from archiving.contents.playlist import Playlist, Reference
from storage_backends.base import object_key
from transfer.urls import SecretUrl

MASTER = SecretUrl("https://cdn.example/a/vod/master.m3u8?Policy=p")


def reference(uri: str) -> Reference:
    (found,) = Playlist(f"#EXTM3U\n#EXTINF:2,\n{uri}\n".encode()).references()
    return found


def path_of(url: str) -> str:
    return TreeLayout(MASTER).place(SecretUrl(urljoin(MASTER.reveal(), url))).path


@pytest.mark.parametrize(
    "url", ["s/1.ts", "./s/1.ts", "/a/vod/s/1.ts", "https://cdn.example:443/a/vod/s/1.ts", "s/%31.ts"]
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
def test_a_query_tells_files_apart_by_what_is_no_signature(query: str, kept: str) -> None:
    assert meaningful_query(query) == kept


urls = st.one_of(
    st.from_regex(
        r"(\.{1,2}/|[a-z%~ .!]{1,4}/){0,3}[a-zA-Z0-9_.=!%-]{0,6}(\.(ts|mp4|m3u8))?(\?[a-c=&]{0,5})?",
        fullmatch=True,
    ),
    st.from_regex(r"https://(cdn|x)\.example(:444)?/a/(vod/)?[a-b]{1,2}\.ts(\?n=[12])?", fullmatch=True),
)


@given(st.lists(urls, max_size=12))
def test_two_files_never_share_a_place_and_none_is_a_folder_of_another(references: list[str]) -> None:
    layout = TreeLayout(MASTER)

    places = [layout.place(SecretUrl(urljoin(MASTER.reveal(), each))) for each in references]

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
    playlist = SecretUrl(urljoin(MASTER.reveal(), stored_at))
    place = layout.place(playlist.join(found.uri))

    text = new_text(found, stored_at, place.path)

    written = found.uri if text is None else text.decode()
    assert urljoin(f"https://copy/folder/{stored_at}", written) == f"https://copy/folder/{place.path}"


@given(
    st.one_of(urls, st.from_regex(r"[A-Za-z0-9_=.-]{1,8}\.[A-Za-z0-9]{1,6}", fullmatch=True)).filter(
        lambda text: text.strip(" \t") and not text.startswith("#")
    ),
    st.sampled_from(["s/p.m3u8", "p.m3u8", "v1.0/b/p.m3u8", "_ext/p.m3u8", "thumbnails/p.m3u8"]),
)
def test_the_short_cut_leads_where_the_long_way_does(uri: str, stored_at: str) -> None:
    found = reference(uri)
    layout = TreeLayout(MASTER)
    playlist = SecretUrl(urljoin(MASTER.reveal(), stored_at))
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
