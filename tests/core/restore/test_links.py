"""Links to an asset: what is signed, and what cannot be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from archiver.core.errors import RestoreError
from archiver.core.restore.links import Links, link
from archiver.core.upkeep.copies import Copies, Selection, find
from storage_backends.base import ObjectKey
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, flip_a_bit
from tests.core.examples import asset

HOUR = timedelta(hours=1)
TREE = {
    "master.m3u8": b'#EXTM3U\n#EXT-X-DEFINE:NAME="q",VALUE="low"\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",'
    b'URI="a/a.m3u8"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\nlow/low.m3u8\n',
    "low/low.m3u8": b'#EXTM3U\n#EXT-X-DEFINE:IMPORT="q"\n#EXT-X-MAP:URI="../init.mp4"\n#EXTINF:1,\n../{$q}/s%200.ts\n'
    b"#EXTINF:1,\nhttps://elsewhere.example/x.ts\n#EXTINF:1,\n../../../secret.ts\n#EXT-X-ENDLIST\n",
    "a/a.m3u8": b"#EXTM3U\r\n#EXTINF:1,\r\ns.aac\r\n#EXT-X-ENDLIST\r\n",
    "init.mp4": b"i",
    "low/s 0.ts": b"0",
    "a/s.aac": b"a",
}


class Signing(MemoryBackend):
    """A store that signs."""

    longest_signature = timedelta(days=7)

    def signed_url(self, key: ObjectKey, lifetime: timedelta) -> str:
        return f"https://signed.example/{key.replace(' ', '%20')}?for={lifetime // HOUR}h"


def linked(*stores: Any) -> Links:
    (copies,) = find(stores, Selection((asset().id,)))
    return link(copies, HOUR)


def test_segments_are_signed_and_playlists_refer_to_each_other() -> None:
    store = Signing("one")
    archive_at([store], asset(), TREE)

    links = linked(store)

    base = f"https://signed.example/recordings/{asset().id}/"
    assert links.playlists["master.m3u8"] == TREE["master.m3u8"]
    assert links.playlists["a/a.m3u8"] == TREE["a/a.m3u8"].replace(b"s.aac", f"{base}a/s.aac?for=1h".encode())
    low = links.playlists["low/low.m3u8"].decode()
    assert f'#EXT-X-MAP:URI="{base}init.mp4?for=1h"' in low
    assert f"\n{base}low/s%200.ts?for=1h\n" in low
    assert "\n../../../secret.ts\n" in low
    assert (links.opens, links.outside, links.signed) == ("master.m3u8", 2, True)
    assert "signed.example" not in repr(links)


def test_a_copy_that_is_not_whole_is_passed_over_for_one_that_is() -> None:
    first, second = Signing("first"), Signing("second")
    key = archive_at([first, second], asset(), TREE)
    flip_a_bit(first, key)  # the playlist at the top, with the size and checksum that are listed

    assert linked(first, second).destination == "memory://second"


def test_a_store_without_signing_says_what_to_do_instead() -> None:
    store = MemoryBackend("plain")
    archive_at([store], asset())

    with pytest.raises(RestoreError, match=r"memory://plain gives no signed URLs: `archiver restore"):
        linked(store)


def test_credentials_that_cannot_sign_are_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Signing("one")
    archive_at([store], asset())

    def refused(*_arguments: object) -> str:
        raise AccessDenied("these credentials cannot sign")

    monkeypatch.setattr(store, "signed_url", refused)

    with pytest.raises(RestoreError, match="these credentials cannot sign"):
        linked(store)


def test_an_asset_of_files_gives_a_link_for_each() -> None:
    store = Signing("one")
    archive_at([store], asset())
    found: Copies
    (found,) = find([store], Selection((asset().id,)))

    links = link(found, HOUR)

    assert set(links.urls) == {"movie.mp4", "asset.json"}
    assert not links.playlists
