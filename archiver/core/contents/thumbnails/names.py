"""List an asset's thumbnails and the paths they are stored at, the same at every attempt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from archiver.core.records.keys import thumbnail_path
from archiver.hms.models import Asset
from archiver.transfer.errors import SourceNotAllowed
from archiver.transfer.urls import SecretUrl

MAX_THUMBNAILS = 1000
_FIELDS = ("url", "location", "path")
_QUERY = re.compile(r"\?[^?]*=.*", re.DOTALL)  # a single `?` may be part of a storage path
_USER_INFO = re.compile(r"//[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """`path`: where it is stored below the asset's folder; None if nothing names it. `location`: its storage path,
    without query; `webhook_key`: the same, unchanged. `shown`: for messages, without query."""

    path: str | None
    location: str | None
    url: SecretUrl | None
    webhook_key: str | None
    shown: str


def named_thumbnails(asset: Asset, from_webhook: Mapping[str, object]) -> tuple[list[Thumbnail], int]:
    """Return the thumbnails of the listing, then those that only a webhook names, and how many exceed MAX_THUMBNAILS.
    Duplicates are dropped; a file name that is taken gets its number as prefix."""
    listed = {_location_and_url(each)[0] for each in asset.thumbnails}
    given = [*asset.thumbnails, *(path for path in from_webhook if path not in listed)]
    thumbnails: list[Thumbnail] = []
    taken: set[str] = set()
    known: set[tuple[str | None, str | None]] = set()
    for number, each in enumerate(given[:MAX_THUMBNAILS]):
        named = _location_and_url(each)
        if named in known and named != (None, None):
            continue
        known.add(named)
        thumbnails.append(_thumbnail(number, *named, taken))
    return thumbnails, max(0, len(given) - MAX_THUMBNAILS)


def _thumbnail(number: int, given: str | None, text: str | None, taken: set[str]) -> Thumbnail:
    location = _QUERY.sub("", _USER_INFO.sub("//", given)) if given else None
    url = _readable(text)
    if not location and url is None:
        shown = SecretUrl(text).name if text else "without a path"
        return Thumbnail(None, None, None, None, shown)
    name = (location or (urlsplit(url.reveal()).path if url else "")).rpartition("/")[2] or "thumbnail.png"
    path = thumbnail_path(name)
    while path in taken:
        name = f"{number}-{name}"
        path = thumbnail_path(name)
    taken.add(path)
    return Thumbnail(path, location or None, url, given, location or (url.name if url else name))


def _readable(text: str | None) -> SecretUrl | None:
    url = SecretUrl(text) if text else None
    try:
        return url if url and url.origin else None
    except SourceNotAllowed:
        return None


def _location_and_url(thumbnail: object) -> tuple[str | None, str | None]:
    """Read a thumbnail: a storage path as documented, or a URL, or an object as in the webhook."""
    given = [thumbnail.get(key) for key in _FIELDS] if isinstance(thumbnail, Mapping) else [thumbnail]
    texts = [text for text in given if isinstance(text, str) and text]
    urls = [text for text in texts if text.lower().startswith(("https://", "http://"))]
    paths = [text for text in texts if text not in urls]
    return next(iter(paths), None), next(iter(urls), None)
