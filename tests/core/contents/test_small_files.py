"""A small file is asked for once: the response that says what it is holds all of it, and is what is copied."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from archiver.core.contents.base import Item
from archiver.core.contents.opening import SMALL_BYTES, ContentsOpener
from archiver.hms.models import Asset
from archiver.http.session import Session
from archiver.transfer.addresses import FixedAddress
from archiver.transfer.base import CopyRequest, CopyResult
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import SourceError
from archiver.transfer.http import Address, HttpClient, Transfers
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource, Intake, Opened
from archiver.transfer.urls import SecretUrl
from storage_backends.base import object_key
from storage_backends.memory import MemoryBackend
from tests.core.contents.origin import Answer, Origin, Request
from tests.core.contents.test_opening import Api
from tests.core.harness import NO_PAUSES

KEY = object_key("chat.txt")
TEXT = b"someone said something\n"


def text(size_bytes: int) -> bytes:
    return (TEXT * (size_bytes // len(TEXT) + 1))[:size_bytes]


@dataclass(frozen=True)
class Case:
    """`api_bytes`: what the API says of the size. `coding`: how the server packs the body."""

    says: str
    body: bytes
    requests: int
    api_bytes: int | None = None
    ranges: bool = True
    coding: Mapping[str, str] = field(default_factory=dict)

    @property
    def sent(self) -> bytes:
        return gzip.compress(self.body) if self.coding else self.body


CASES = [
    Case("a few KiB, as the API says", text(5000), 1, api_bytes=5000),
    Case("one byte", b"x", 1, api_bytes=1),
    Case("less than what is looked at to know what it is", text(100), 1),
    Case("the API does not say how long it is", text(5000), 1),
    Case("just as many bytes as are asked for", text(SMALL_BYTES), 1),
    Case("a server without ranges, which sends all of it", text(5000), 1, ranges=False),
    Case("a byte more than is asked for", text(SMALL_BYTES + 1), 2),
    Case("larger, and the API says so", text(2 * SMALL_BYTES), 2, api_bytes=2 * SMALL_BYTES),
    Case("larger than the API says", text(2 * SMALL_BYTES), 2, api_bytes=10),
    Case(
        "packed, so that its length is not known before", text(5000), 2, coding={"Content-Encoding": "gzip"}
    ),
]


def opened(client: HttpClient, origin: Origin, case: Case) -> Item:
    asset = Asset.parse(
        {"id": "a1", "type": "chat", "status": "completed", "path": "s3://b/chat.txt", "size": case.api_bytes}
    )
    contents = ContentsOpener(Api(f"{origin.url}/f?sig=1"), client, sleep=lambda _: None)(asset)
    (item,) = contents.items()
    return item


class Copies:
    """Copies one item again and again, each time by an engine of its own."""

    def __init__(self, item: Item) -> None:
        self._item = item

    def copy(self) -> tuple[CopyResult, bytes]:
        store = MemoryBackend("one")
        item = self._item
        assert item.source is not None
        request = CopyRequest(KEY, item.content_type, check=item.check, structure=item.structure)
        with TransferEngine(MemoryBudget(2**24), policy=NO_PAUSES) as engine:
            result = engine.submit(item.source, request, [store]).result(10)
            assert engine.confirm() == {}
        return result, store.read(KEY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_a_small_file_is_opened_and_copied_by_one_request(
    client: HttpClient, origin: Origin, case: Case
) -> None:
    origin.ranges = case.ranges
    origin.rule = lambda _: Answer(200, case.sent, case.coding) if case.coding else None
    origin.files = {"/f": case.body}

    result, stored = Copies(opened(client, origin, case)).copy()

    assert stored == case.body
    assert result.size_bytes == len(case.body)
    assert origin.asked("/f") == case.requests


def test_the_first_part_of_a_larger_file_is_not_taken_for_all_of_it_however_early_it_comes(
    client: HttpClient, origin: Origin
) -> None:
    """It may be there before anybody asks for the rest."""

    class Early(HttpSource):
        async def fetch(
            self, first_bytes: int, session: Session | None = None, intake: Intake | None = None
        ) -> tuple[Opened, Transfers]:
            opened, transfers = await super().fetch(first_bytes, session, intake)
            if opened.rest is not None:
                await opened.rest.rest()
                opened = Opened(opened.info, body=opened.rest.take_body())
            return opened, transfers

    body = text(SMALL_BYTES + 1)
    origin.files = {"/f": body}
    url = SecretUrl(f"{origin.url}/f")
    source = Early(client, FixedAddress(Address(url, handed_out=frozenset({url.origin}))))

    _, start = source.peek(SMALL_BYTES)
    stored = Copies(Item("f", "text/plain", source=source)).copy()[1]

    assert (start, stored) == (body[:SMALL_BYTES], body)


def test_a_copy_that_is_made_again_asks_again(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/f": text(5000)}
    copies = Copies(opened(client, origin, CASES[0]))
    copies.copy()
    origin.files = {"/f": text(6000)}

    result, stored = copies.copy()

    assert (result.size_bytes, stored) == (6000, text(6000))
    assert origin.asked("/f") == 2


def test_a_small_file_that_is_refused_at_first_is_copied_all_the_same(
    client: HttpClient, origin: Origin
) -> None:
    def busy_once(_: Request) -> Answer | None:
        return Answer(503) if len(origin.requests) == 1 else None

    origin.rule = busy_once
    origin.files = {"/f": text(5000)}

    result, stored = Copies(opened(client, origin, CASES[0])).copy()

    assert (result.size_bytes, stored) == (5000, text(5000))


def test_the_response_of_the_first_request_gets_all_checks(client: HttpClient, origin: Origin) -> None:
    """By its own checksum, as one that the engine asked for."""
    origin.files = {"/f": text(5000)}
    origin.headers = lambda _: Answer(200, headers={"x-goog-hash": "crc32c=AAAAAA=="})
    copies = Copies(opened(client, origin, CASES[0]))

    with pytest.raises(SourceError, match="CRC32C"):
        copies.copy()
