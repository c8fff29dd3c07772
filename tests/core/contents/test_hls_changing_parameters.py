"""Queries of unknown meaning: compared across two signatures before one becomes part of a file's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from archiver.core.contents.hls.access import TreeAccess
from archiver.core.contents.hls.tree import HlsContents
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.http import HttpClient
from archiver.transfer.urls import SecretUrl
from tests.core.contents.origin import Answer, Origin, Request, copy, vod
from tests.core.contents.trees import Naps, numbered


@dataclass
class Signer:
    """Signs the master, and counts. What its playlists name carries `query` of the signature that they were asked
    with, or of the request."""

    origin: Origin
    query: Callable[[str, int], str]
    in_master: bool = True
    in_media: bool = True
    signed: int = 0
    playlists_read: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.origin.rule = self._answer

    def sign(self) -> SecretUrl:
        self.signed += 1
        return SecretUrl(f"{self.origin.url}/vod/master.m3u8?Policy=p{self.signed}&Signature=s&Key-Pair-Id=k")

    def _answer(self, request: Request) -> Answer | None:
        if not request.path.endswith(".m3u8") or request.path not in self.origin.files:
            return None
        self.playlists_read.append(request.path)
        is_master = request.path == "/vod/master.m3u8"
        if not (self.in_master if is_master else self.in_media):
            return None
        query = self.query(str(self.signed), len(self.playlists_read))
        lines = self.origin.files[request.path].decode().split("\n")
        marked = [f"{line}?{query}" if line and line[0] != "#" else line for line in lines]
        return Answer(200, "\n".join(marked).encode())


def names_of(client: HttpClient, signer: Signer) -> tuple[str, object, set[str]]:
    contents = HlsContents(client, RenewableUrl(signer.sign), sleep=Naps())
    made = copy(contents)
    assert contents.notes.doubts == []
    assert not any(b"?" in body for path, body in made.files.items() if path.endswith("m3u8"))
    return contents.version, contents.notes.facts["playlists_sha256"], set(made.files)


CHANGING = {
    "with every signature": lambda signature, request: f"session={signature}",
    "with every request": lambda signature, request: f"nonce={request}",
    "with every request, beside one that does not": lambda signature, request: f"v=7&nonce={request}",
    "beside a known signature": lambda signature, request: f"n={request}&Signature=s{request}&Key-Pair-Id=k",
}


@pytest.mark.parametrize("query", CHANGING.values(), ids=CHANGING)
@pytest.mark.parametrize(
    ("in_master", "in_media"), [(True, True), (True, False), (False, True)], ids=["all", "master", "media"]
)
def test_what_changes_is_no_part_of_a_name(
    client: HttpClient,
    origin: Origin,
    query: Callable[[str, int], str],
    in_master: bool,
    in_media: bool,
) -> None:
    origin.files = vod()
    signer = Signer(origin, query, in_master, in_media)

    first, second = names_of(client, signer), names_of(client, signer)

    assert first == second
    assert len(first[2]) == len(origin.files)


@pytest.mark.parametrize(
    ("query", "in_master", "in_media", "more"),
    [
        (lambda signature, request: "v=7", True, True, ["master", "stream_0"]),
        (lambda signature, request: f"n={request}", True, True, ["master", "stream_0"]),
        (lambda signature, request: f"n={request}", False, True, ["master", "stream_0"]),
        (lambda signature, request: f"n={request}", True, False, ["master"]),
        (lambda signature, request: f"Signature={request}&Key-Pair-Id=k", True, True, []),
        (lambda signature, request: "", False, False, []),
    ],
    ids=["stable", "changing", "in the media alone", "in the master alone", "known signatures", "no queries"],
)
def test_only_queries_of_unknown_meaning_cost_another_reading(
    client: HttpClient,
    origin: Origin,
    query: Callable[[str, int], str],
    in_master: bool,
    in_media: bool,
    more: list[str],
) -> None:
    origin.files = vod()
    signer = Signer(origin, query, in_master, in_media)

    names_of(client, signer)

    read = {
        name: sum(name in path for path in signer.playlists_read)
        for name in ("master", "stream_0", "stream_1")
    }
    again = "stream_0" in more
    assert read["stream_0"] == 1 + again
    assert read["stream_1"] == 1, "its parameters are known by then"
    assert read["master"] == 1 + ("master" in more and in_master) + again, (
        "a playlist's other signature is the master's"
    )
    assert signer.signed == 1 + (read["master"] - 1)


def test_a_parameter_that_does_not_change_distinguishes_files(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": b"", "/vod/a.ts": b""}
    requests = iter(range(100))
    origin.rule = lambda request: (
        Answer(
            200,
            "".join(
                [
                    "#EXTM3U\n",
                    *(f"#EXTINF:2,\na.ts?part={part}&n={next(requests)}\n" for part in (1, 2)),
                    "#EXT-X-ENDLIST\n",
                ]
            ).encode(),
        )
        if request.path == "/vod/master.m3u8"
        else Answer(200, numbered(int(request.query["part"][0])))
    )

    def paths() -> dict[str, bytes]:
        return copy(
            HlsContents(client, RenewableUrl(lambda: SecretUrl(f"{origin.url}/vod/master.m3u8")))
        ).files

    first = paths()

    assert first == paths()
    assert {body for path, body in first.items() if path.endswith(".ts")} == {numbered(1), numbered(2)}


def test_a_second_reading_that_fails_leaves_what_was_read(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    signer = Signer(origin, lambda signature, request: "v=7")
    answer = origin.rule
    origin.rule = lambda request: (
        Answer(404)
        if request.path == "/vod/stream_0/stream.m3u8" and request.path in signer.playlists_read
        else answer(request)
    )

    assert len(names_of(client, signer)[2]) == len(origin.files)


def test_where_nothing_is_signed_nothing_is_read_twice(client: HttpClient, origin: Origin) -> None:
    class InStore(TreeAccess):
        children_may_be_signed = False

    origin.files = vod()
    signer = Signer(origin, lambda signature, request: f"n={request}")

    copy(HlsContents(client, RenewableUrl(signer.sign), open_access=InStore))

    assert signer.signed == 1
    assert len(signer.playlists_read) == 3
