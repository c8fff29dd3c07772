"""Who may read the files that a master names (hls.md, trap 7), over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.contents.hls.tree import HlsContents
from archiver.core.errors import NeedsSourceAccess
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.errors import SourceForbidden
from archiver.transfer.http import HttpClient
from archiver.transfer.urls import SecretUrl
from tests.core.contents.origin import Answer, Origin, Request, copy, vod
from tests.core.contents.trees import TS, Naps, copy_tree, open_tree, segments, walk


def cookie_of(request: Request) -> str | None:
    return request.headers.get("cookie")


def test_cookies_of_the_master_open_its_children(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    origin.headers = lambda request: Answer(
        0, b"", {"Set-Cookie": "CloudFront-Policy=p; Path=/; Secure; HttpOnly"}
    )
    origin.rule = lambda request: (
        None if "master" in request.path or cookie_of(request) == "CloudFront-Policy=p" else Answer(403)
    )

    made = copy_tree(client, origin)

    assert len(made.files) == len(origin.files)
    refused = [request for request in origin.requests if cookie_of(request) is None]
    assert len(refused) == 2, "the master, and the first child once"


def test_a_folder_token_is_carried_over_only_where_it_is_needed(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    origin.rule = lambda request: None if request.query.get("hdnts") == ["t~acl=/*"] else Answer(403)

    made = copy_tree(client, origin, "/vod/master.m3u8?hdnts=t~acl=/*")

    assert {f"/vod/{path}": body for path, body in made.files.items()} == origin.files


def test_children_that_are_open_get_neither_cookie_nor_token(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    origin.headers = lambda request: Answer(0, b"", {"Set-Cookie": "session=1"})

    copy_tree(client, origin, "/vod/master.m3u8?token=t")

    children = [request for request in origin.requests if "master" not in request.path]
    assert not any(cookie_of(request) or request.query for request in children)


def test_neither_cookie_nor_token_goes_to_another_host(
    origin: Origin, elsewhere: Origin, client: HttpClient
) -> None:
    """Both origins are handed out by the API here, or the policy would refuse the other one at once."""
    elsewhere.rule = lambda request: Answer(403)
    origin.files = {"/vod/master.m3u8": segments("a.ts", f"{elsewhere.url}/b.ts"), "/vod/a.ts": TS}
    origin.headers = lambda request: Answer(0, b"", {"Set-Cookie": "session=1"})
    origin.rule = lambda request: None if "master" in request.path or cookie_of(request) else Answer(403)
    trusted = frozenset({SecretUrl(origin.url).origin, SecretUrl(elsewhere.url).origin})

    class Both(RenewableUrl):
        def current(self):  # type: ignore[no-untyped-def]
            return replace(super().current(), handed_out=trusted)

    address = Both(lambda: SecretUrl(f"{origin.url}/vod/master.m3u8?token=t"))
    with pytest.raises(SourceForbidden):
        copy(HlsContents(client, address, sleep=Naps()))

    assert elsewhere.requests
    assert not any(cookie_of(request) or request.query for request in elsewhere.requests)


@pytest.mark.parametrize("kind", ["variants", "media"])
@pytest.mark.parametrize("signature", ["X-Amz-Signature=abc&X-Amz-Credential=k", "X-Goog-Signature=abc"])
def test_a_signature_for_the_master_alone_needs_access_to_the_source(
    client: HttpClient, origin: Origin, signature: str, kind: str
) -> None:
    files = vod()
    files["/vod/master.m3u8"] = files["/vod/master.m3u8"] if kind == "variants" else segments("a.ts")
    origin.files = files
    origin.rule = lambda request: Answer(403) if "master" not in request.path else None

    with pytest.raises(NeedsSourceAccess, match=r"only .*/vod/master.m3u8 is signed") as caught:
        copy_tree(client, origin, f"/vod/master.m3u8?{signature}")

    assert "abc" not in str(caught.value)
    assert not any(request.query for request in origin.requests if "master" not in request.path)


def test_children_that_are_refused_without_such_a_signature_are_forbidden(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = vod()
    origin.rule = lambda request: Answer(403) if "master" not in request.path else None

    with pytest.raises(SourceForbidden):
        copy_tree(client, origin)


class Signer:
    """An API that signs the master again, and an origin that believes only the newest signature of all files,
    which its playlists carry."""

    def __init__(self, origin: Origin, in_playlists: bool) -> None:
        self.origin = origin
        self.valid = 0
        self.signed = 0
        self._in_playlists = in_playlists
        origin.rule = self._rule

    def sign(self) -> SecretUrl:
        self.signed += 1
        self.valid = self.signed
        return SecretUrl(f"{self.origin.url}/vod/master.m3u8?token=t{self.valid}")

    def expire(self) -> None:
        self.valid = -1

    def _rule(self, request: Request) -> Answer | None:
        if request.query.get("token") != [f"t{self.valid}"]:
            return Answer(403)
        body = self.origin.files.get(request.path, b"")
        if not (self._in_playlists and request.path.endswith(".m3u8")):
            return None
        lines = body.decode().split("\n")
        return Answer(
            200,
            "\n".join(
                f"{line}?token=t{self.valid}" if line and line[0] != "#" else line for line in lines
            ).encode(),
        )


@pytest.mark.parametrize(
    "in_playlists", [False, True], ids=["one token for the folder", "each child is signed"]
)
def test_a_signature_that_expires_in_the_middle_is_renewed(
    client: HttpClient, origin: Origin, in_playlists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.core.contents.hls.access.MIN_RENEWAL_AGE", timedelta())
    origin.files = vod("vod-fmp4")
    signer = Signer(origin, in_playlists)
    contents = HlsContents(client, RenewableUrl(signer.sign), sleep=Naps())
    seen = []

    def watched():  # type: ignore[no-untyped-def]
        for item in contents.items():
            seen.append(item.path)
            if len(seen) in (3, 6):
                signer.expire()
            yield item

    class Watched:
        items = staticmethod(watched)

    made = copy(Watched())  # type: ignore[arg-type]

    assert signer.signed == 3
    assert {path: body for path, body in made.files.items() if not path.endswith("m3u8")} == {
        path.removeprefix("/vod/"): body for path, body in origin.files.items() if not path.endswith("m3u8")
    }
    assert not any(b"token" in body for body in made.files.values())


def test_a_file_that_stays_forbidden_does_not_cost_a_signature_each_time(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {"/vod/master.m3u8": segments(*[f"{number}.ts" for number in range(50)])}
    signatures = []

    def sign() -> SecretUrl:
        signatures.append(1)
        return SecretUrl(f"{origin.url}/vod/master.m3u8")

    origin.rule = lambda request: None if "master" in request.path else Answer(403)
    refused = 0
    for item in HlsContents(client, RenewableUrl(sign), sleep=Naps()).items():
        if item.source is not None:
            with pytest.raises(SourceForbidden):
                item.source.open(1)
            refused += 1

    assert refused == 50
    assert len(signatures) <= 3


# -- a master that is signed alone, and what can be read all the same ----------------------------------------
SIGNED = "/vod/master.m3u8?X-Amz-Signature=abc&X-Amz-Credential=k"


def refuse(*paths: str) -> Callable[[Request], Answer | None]:
    return lambda request: Answer(403) if request.path in paths else None


@pytest.mark.parametrize(
    ("refused", "lost"),
    [
        (["/vod/0.ts"], {"0.ts"}),
        (["/vod/0.ts", "/vod/1.ts"], {"0.ts", "1.ts"}),
        (["/vod/4.ts"], {"4.ts"}),
    ],
    ids=["the first", "the first two", "the last"],
)
def test_a_file_that_is_refused_alone_is_no_matter_of_access(
    client: HttpClient, origin: Origin, refused: list[str], lost: set[str]
) -> None:
    origin.files = {"/vod/master.m3u8": segments(*(f"{number}.ts" for number in range(5)))}
    origin.files |= {f"/vod/{number}.ts": TS for number in range(5)}
    origin.rule = refuse(*refused)

    walked = walk(client, origin, SIGNED)

    assert set(walked.copy.failures) == lost
    assert len(walked.paths) == len(origin.files) - len(lost)


def test_nothing_is_yielded_if_all_the_first_files_are_refused(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": segments(*(f"{number}.ts" for number in range(50)))}
    origin.rule = lambda request: Answer(403) if "master" not in request.path else None
    contents = open_tree(client, origin, SIGNED)

    with pytest.raises(NeedsSourceAccess):
        next(contents.items())
    assert len({request.path for request in origin.requests}) == 1 + 3


@pytest.mark.parametrize(
    "missing", [Answer(404), Answer(503, b"", {"Retry-After": "3600"})], ids=["gone", "busy"]
)
def test_files_that_cannot_be_had_for_another_reason_are_no_matter_of_access(
    client: HttpClient, origin: Origin, missing: Answer
) -> None:
    origin.files = {"/vod/master.m3u8": segments("0.ts", "1.ts")}
    origin.rule = lambda request: {"/vod/0.ts": missing, "/vod/1.ts": Answer(403)}.get(request.path)

    walked = walk(client, origin, SIGNED)

    assert set(walked.copy.failures) == {"0.ts", "1.ts"}


@pytest.mark.parametrize("path", ["/vod/master.m3u8", SIGNED], ids=["open", "signed alone"])
def test_a_playlist_that_is_refused_alone_is_a_doubt(client: HttpClient, origin: Origin, path: str) -> None:
    origin.files = vod()
    origin.rule = refuse("/vod/stream_0/stream.m3u8")

    walked = walk(client, origin, path)

    assert walked.missing == {"stream_0/stream.m3u8"}
    assert {name for name in walked.paths if name.startswith("stream_0/")} == set()
    assert len([name for name in walked.paths if name.startswith("stream_1/")]) > 3
