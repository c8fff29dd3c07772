"""Which responses are confirmed, by what, and what that costs: requests counted at a server that may answer twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from archiver.transfer.addresses import FixedAddress
from archiver.transfer.base import CopyRequest, CopyResult, KnownCopy
from archiver.transfer.bodies import measure
from archiver.transfer.checksums import crc32c
from archiver.transfer.confirmations import ANOTHER, MORE_CAME, UNREADABLE
from archiver.transfer.documents import fetch_bytes
from archiver.transfer.engine import TransferEngine
from archiver.transfer.http import Address
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl
from storage_backends.base import ObjectKey, object_key
from storage_backends.memory import MemoryBackend
from tests.judged.twice import ETAG, ONE_BEHIND, WITH_THE_NEXT, TwiceServer
from tests.transfer.builders import HURRIED, client

PART = 1000
FILES = {f"/{number}": bytes([number]) * 700 for number in range(10)}


def once(path: str) -> Any:
    return lambda asked, count: asked == path and count == 1


@dataclass
class Copies:
    """Over one connection at a time, in order."""

    engine: TransferEngine
    server: TwiceServer
    trusted: Sequence[str]
    store: MemoryBackend = field(default_factory=lambda: MemoryBackend("one"))

    def __post_init__(self) -> None:
        self._http = client()

    def copy(self, paths: Sequence[str], **asked: Any) -> list[CopyResult]:
        handed_out = frozenset(SecretUrl(url).origin for url in self.trusted)
        futures = []
        for path in paths:
            url = SecretUrl(self.server.url + path)
            source = HttpSource(self._http, FixedAddress(Address(url, handed_out=handed_out)))
            request = CopyRequest(key_of(path), "video/mp4", **asked)
            futures.append(self.engine.submit(source, request, [self.store]))
        return [future.result(30) for future in futures]

    def wrong(self, files: Mapping[str, bytes]) -> list[str]:
        return [
            path for path, body in files.items() if self.store.read(key_of(path), 0, len(body) + 1) != body
        ]

    def close(self) -> None:
        self._http.close()


def key_of(path: str) -> ObjectKey:
    return object_key(f"asset{path}")


@contextmanager
def copies(server: TwiceServer, *others: TwiceServer) -> Iterator[Copies]:
    memory = MemoryBudget(2**20)
    with TransferEngine(memory, part_bytes=PART, connections=1, uploads=1, policy=HURRIED) as engine:
        made = Copies(engine, server, [server.url, *(other.url for other in others)])
        try:
            yield made
        finally:
            made.close()


# -- the price -----------------------------------------------------------------------------------------------
def test_a_single_small_file_costs_one_request() -> None:
    with TwiceServer(FILES) as server, copies(server) as made:
        made.copy(["/0"])

        assert made.engine.confirm() == {}
        assert server.asked == [(1, "/0")]


def test_many_small_files_over_one_connection_cost_one_request_more() -> None:
    with TwiceServer(FILES) as server, copies(server) as made:
        made.copy(list(FILES))

        assert made.engine.confirm() == {}
        assert server.asked == [*((1, path) for path in FILES), (2, "/9")]


def test_what_was_confirmed_is_not_confirmed_again() -> None:
    with TwiceServer(FILES) as server, copies(server) as made:
        made.copy(list(FILES))
        made.engine.confirm()
        asked = len(server.asked)

        assert made.engine.confirm() == {}
        assert len(server.asked) == asked


def test_the_parts_of_a_large_file_confirm_themselves_and_all_before_them() -> None:
    files = {**FILES, "/large": bytes(range(250)) * 18}
    with TwiceServer(files) as server, copies(server) as made:
        made.copy(list(files))

        assert made.engine.confirm() == {}
        assert len(server.asked) == len(FILES) + 5
        assert made.wrong(files) == []


# -- what is not confirmed ----------------------------------------------------------------------------------------
def test_all_that_a_connection_brought_is_named_when_it_is_one_behind() -> None:
    with TwiceServer(FILES, twice=once("/4"), delay=ONE_BEHIND) as server, copies(server) as made:
        made.copy(list(FILES))

        assert made.engine.confirm() == {key_of(path): ANOTHER for path in list(FILES)[1:]}
        assert made.wrong(FILES) == ["/5", "/6", "/7", "/8", "/9"]


def test_more_than_was_asked_for_needs_no_second_look() -> None:
    with TwiceServer(FILES, twice=once("/4"), delay=WITH_THE_NEXT) as server, copies(server) as made:
        made.copy(list(FILES)[:6])

        assert set(made.engine.confirm().values()) == {MORE_CAME}
        assert len(server.asked) == 6


def test_what_cannot_be_read_again_is_not_confirmed() -> None:
    with TwiceServer(FILES) as server, copies(server) as made:
        made.copy(list(FILES))
        server.refuses = lambda _path, _count: True

        assert made.engine.confirm() == {key_of(path): UNREADABLE for path in list(FILES)[1:]}


def test_one_refusal_is_not_the_last_word() -> None:
    with TwiceServer(FILES) as server, copies(server) as made:
        made.copy(list(FILES))
        server.refuses = lambda _path, count: count == 2

        assert made.engine.confirm() == {}


def test_nothing_follows_on_a_connection_that_is_not_confirmed() -> None:
    with TwiceServer(FILES, twice=once("/4"), delay=ONE_BEHIND) as server, copies(server) as made:
        made.copy(list(FILES))
        made.engine.confirm()

        made.copy(["/0"])
        assert server.asked[-1][0] not in {connection for connection, _ in server.asked[:-1]}


def test_a_redirect_that_was_meant_for_another_file() -> None:
    """Where it leads, the connection is right to its end."""
    with (
        TwiceServer(FILES) as good,
        TwiceServer({}, twice=once("/4"), delay=WITH_THE_NEXT, closes=True) as server,
        copies(server, good) as made,
    ):
        server.redirects = {path: good.url + path for path in FILES}
        made.copy(list(FILES))

        assert made.wrong(FILES) == ["/5"]
        assert key_of("/5") in made.engine.confirm()


# -- copied again ----------------------------------------------------------------------------------------------
def test_copies_over_connections_of_their_own_are_right_whatever_the_server_does() -> None:
    with TwiceServer(FILES, twice=lambda *_: True, delay=ONE_BEHIND) as server, copies(server) as made:
        made.copy(list(FILES))
        assert made.engine.confirm()

        made.copy(list(FILES), fresh=True)

        assert made.wrong(FILES) == []
        assert made.engine.confirm() == {}


def test_parts_of_twins_over_connections_of_their_own() -> None:
    files = {f"/{number}": bytes([number]) * 4500 for number in range(3)}
    with TwiceServer(files, twice=lambda *_: True, delay=ONE_BEHIND) as server, copies(server) as made:
        made.copy(list(files), fresh=True)

        assert made.wrong(files) == []
        assert made.engine.confirm() == {}


def test_what_is_there_is_written_over_by_nothing_that_is_not_certain() -> None:
    """A response for another file says that this one has changed: what a later attempt would then trust is not lost."""
    changed = KnownCopy(700, crc32c(FILES["/5"]), '"before"')
    with TwiceServer(FILES, twice=once("/4"), delay=ONE_BEHIND) as server, copies(server) as made:
        made.copy(["/3", "/4"])

        made.copy(["/5"], known=changed)

        assert made.wrong({"/5": FILES["/5"]}) == []
        assert [connection for connection, _ in server.asked] == [1, 1, 1, 2]


def test_a_file_that_seems_unchanged_is_confirmed_as_well() -> None:
    known = KnownCopy(700, crc32c(FILES["/5"]), ETAG)
    with TwiceServer(FILES, twice=once("/4"), delay=ONE_BEHIND) as server, copies(server) as made:
        made.copy(["/3", "/4"])

        (result,) = made.copy(["/5"], known=known)

        assert result.unchanged
        assert made.engine.confirm()[key_of("/5")] == ANOTHER


# -- everybody but the engine ----------------------------------------------------------------------------------
def address_of(url: str, *others: str) -> FixedAddress:
    trusted = frozenset(SecretUrl(each).origin for each in (url, *others))
    return FixedAddress(Address(SecretUrl(url), handed_out=trusted))


def test_documents_and_first_looks_each_have_a_connection_of_their_own() -> None:
    http = client()
    with TwiceServer(FILES, twice=lambda *_: True, delay=ONE_BEHIND) as server:
        for path, body in FILES.items():
            assert fetch_bytes(http, address_of(server.url + path), 10_000, HURRIED).body == body
            info, reader = HttpSource(http, address_of(server.url + path)).open(10_000)
            assert info.size_bytes == 700
            assert measure(reader) == (700, crc32c(body))

        assert len({connection for connection, _ in server.asked}) == 2 * len(FILES)
    http.close()


def test_ranges_that_name_themselves_share_a_connection() -> None:
    http = client()
    with TwiceServer(FILES) as server:
        source = HttpSource(http, address_of(f"{server.url}/5"))
        info, reader = source.open(1)
        reader.close()
        piece = bytearray(100)
        for start in range(0, 700, 100):
            source.read_range(start, memoryview(piece), info)
            assert bytes(piece) == FILES["/5"][:100]

        assert len({connection for connection, _ in server.asked}) <= 2
    http.close()


@pytest.mark.parametrize("names", [["/1", "/2"], ["/1?part=1", "/1?part=2"]], ids=["by path", "by query"])
def test_the_same_range_of_two_files_never_shares_a_connection(names: list[str]) -> None:
    http = client()
    piece = bytearray(100)
    with TwiceServer(FILES) as server:
        for name in names:
            source = HttpSource(http, address_of(server.url + name))
            info, reader = source.open(1)
            reader.close()
            asked = len(server.asked)
            source.read_range(100, memoryview(piece), info)
        ranges = server.asked[1], server.asked[asked]

        assert ranges[0][0] != ranges[1][0]
    http.close()


def test_a_redirect_on_a_kept_connection_is_asked_for_again() -> None:
    http = client()
    piece = bytearray(10)
    with TwiceServer(FILES) as good, TwiceServer({}, twice=lambda *_: True, delay=ONE_BEHIND) as server:
        server.redirects = {path: good.url + path for path in FILES}
        sources = [HttpSource(http, address_of(server.url + path, good.url)) for path in FILES]
        infos = [source.open(1)[0] for source in sources]

        for number, source in enumerate(sources):
            source.read_range(number, memoryview(piece), infos[number])
            assert bytes(piece) == FILES[f"/{number}"][:10]
    http.close()
