"""Fetch the thumbnails of an asset. The API gives storage paths and does not sign them, so each is fetched from the
first of these that responds:

- its URL, if the API gives one after all;
- the URL beside the asset's, derived from both storage paths, unless the signature covers one file only; for a tree
  with its credentials (cookies of its master, a token, our own credentials);
- the signed URL of a webhook, if one was stored.

A missing thumbnail is a warning in the manifest, never a failure of the asset. Refused or busy ones are retried by the
copy, and `ThumbnailsOnly` fetches later what is still missing, to the same paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from archiver.core.contents import sniff
from archiver.core.contents.base import Contents, Item, Notes
from archiver.core.contents.hls.access import folder_token, signs_one_object
from archiver.core.contents.thumbnails.names import MAX_THUMBNAILS, Thumbnail, named_thumbnails
from archiver.core.contents.thumbnails.sources import CookieRetry, FirstAvailable, OriginCookies, image_check
from archiver.hms.models import Asset
from archiver.transfer.addresses import FixedAddress, SourceAddress
from archiver.transfer.base import Source
from archiver.transfer.errors import SourceNotAllowed
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl


@runtime_checkable
class OpensSiblings(Protocol):
    """Contents that can read files beside their own: a tree."""

    @property
    def url(self) -> SecretUrl:
        """URL of the asset's file, after redirects."""
        ...

    def source_beside(self, url: SecretUrl) -> Source | None:
        """Return the file at `url`, which has no signature of its own; None if the credentials cover only the asset.
        Cookies and tokens go only to the origin of `self.url`. Raises SourceNotAllowed."""
        ...


class _Thumbnails:
    """What `WithThumbnails` and `ThumbnailsOnly` share."""

    def __init__(
        self,
        contents: Contents,
        asset: Asset,
        *,
        client: HttpClient,
        own: SourceAddress,
        from_webhook: Mapping[str, SecretStr],
    ) -> None:
        self.contents = contents
        self._asset = asset
        self._client = client
        self._own = own
        self._from_webhook = from_webhook
        self._cookies = OriginCookies(client, own)
        self._tree = contents if isinstance(contents, OpensSiblings) else None

    def items(self, notes: Notes, stored: Collection[str] = ()) -> Iterator[Item]:
        """Yield the thumbnails whose path is not in `stored`."""
        thumbnails, left_out = named_thumbnails(self._asset, self._from_webhook)
        for thumbnail in thumbnails:
            if thumbnail.path in stored:
                continue
            sources = [source for source in self._sources(thumbnail) if source is not None]
            if thumbnail.path is None or not sources:
                notes.warnings.append(
                    f"thumbnail {thumbnail.shown} could not be fetched: {self._why(thumbnail)}"
                )
                continue
            yield Item(
                path=thumbnail.path,
                content_type=sniff.content_type(thumbnail.path),
                source=sources[0] if len(sources) == 1 else FirstAvailable(sources),
                check=image_check(thumbnail.path, notes),
                optional=True,
            )
        if left_out:
            notes.warnings.append(f"{left_out} thumbnails beyond the first {MAX_THUMBNAILS} were left out")

    def _sources(self, thumbnail: Thumbnail) -> Sequence[Source | None]:
        stored = self._from_webhook.get(thumbnail.webhook_key or "")
        return (
            self._handed_out(thumbnail.url),
            self._beside_the_asset(thumbnail.location),
            self._handed_out(SecretUrl(stored.get_secret_value()) if stored else None),
        )

    def _handed_out(self, url: SecretUrl | None) -> Source | None:
        """Return the source at a URL from the API or a webhook; None if it cannot be read."""
        if url is None:
            return None
        try:
            is_of_the_tree = self._tree is not None and url.origin == self._tree.url.origin
            beside = self._beside_the_tree(url) if is_of_the_tree and not signs_one_object(url) else None
            return beside or self._at(Address(url, handed_out=frozenset({url.origin})))
        except SourceNotAllowed:
            return None

    def _beside_the_asset(self, location: str | None) -> Source | None:
        own_path = self._asset.path
        if not location or not own_path:
            return None
        if self._tree is not None and (url := _url_of(location, own_path, self._tree.url)):
            return self._beside_the_tree(url)
        own = self._own.current()
        if signs_one_object(own.url) or not (url := map_path(location, own_path, own.url)):
            return None
        return self._at(Address(url, own.headers, own.handed_out))

    def _beside_the_tree(self, url: SecretUrl) -> Source | None:
        try:
            return self._tree.source_beside(url) if self._tree is not None else None
        except SourceNotAllowed:
            return None

    def _at(self, address: Address) -> Source:
        if self._tree is not None or signs_one_object(address.url):
            return HttpSource(self._client, FixedAddress(address))
        return HttpSource(self._client, CookieRetry(address, self._cookies))

    def _why(self, thumbnail: Thumbnail) -> str:
        if thumbnail.location is None:
            return "the API gives neither a path nor a usable URL of it"
        if self._asset.path and signs_one_object(self._own.current().url):
            return "the API signs none, the asset's own signature covers one file alone, and no webhook brought a URL"
        return "it does not lie beside the asset, and no webhook brought a URL"


class WithThumbnails:
    """The thumbnails of `asset`, all optional, and then `contents`."""

    def __init__(
        self,
        contents: Contents,
        asset: Asset,
        *,
        client: HttpClient,
        own: SourceAddress,
        from_webhook: Mapping[str, SecretStr],
    ) -> None:
        """`own`: address of the asset itself; `from_webhook`: signed URLs by storage path."""
        self._contents = contents
        self._thumbnails = _Thumbnails(contents, asset, client=client, own=own, from_webhook=from_webhook)

    @property
    def form(self) -> str:
        return self._contents.form

    @property
    def version(self) -> str:
        return self._contents.version

    @property
    def version_is_exact(self) -> bool:
        return self._contents.version_is_exact

    @property
    def notes(self) -> Notes:
        return self._contents.notes

    def items(self) -> Iterator[Item]:
        yield from self._thumbnails.items(self.notes)
        yield from self._contents.items()

    def only_missing(self, stored: Collection[str]) -> ThumbnailsOnly:
        """Return only the thumbnails whose path is not in `stored` (paths as in the manifest)."""
        return ThumbnailsOnly(self._thumbnails, stored)


class ThumbnailsOnly:
    """`core.contents.base.Contents` of only the thumbnails that are not stored yet, with their own `notes`."""

    version_is_exact = False  # the version does not cover thumbnails

    def __init__(self, thumbnails: _Thumbnails, stored: Collection[str]) -> None:
        self._thumbnails = thumbnails
        self._stored = frozenset(stored)
        self._notes = Notes()

    @property
    def form(self) -> str:
        return self._thumbnails.contents.form

    @property
    def version(self) -> str:
        return self._thumbnails.contents.version

    @property
    def notes(self) -> Notes:
        return self._notes

    def items(self) -> Iterator[Item]:
        return self._thumbnails.items(self._notes, self._stored)


def missing_thumbnails(
    stored: Collection[str], asset: Asset, from_webhook: Mapping[str, SecretStr] | None = None
) -> list[str]:
    """Return the paths of the thumbnails of `asset` that are not in `stored` (paths as in the manifest), without those
    that have neither path nor URL and can never be fetched. Makes no request."""
    thumbnails, _ = named_thumbnails(asset, from_webhook or {})
    return [each.path for each in thumbnails if each.path is not None and each.path not in stored]


def map_path(location: str, own_path: str, own_url: SecretUrl) -> SecretUrl | None:
    """Derive the URL of storage path `location` from that of `own_path`, which is `own_url`: their common end is one
    file below two roots. None if they have no common end, or `location` is below another root. The query is kept only
    if it is a token for a folder."""
    url = _url_of(location, own_path, own_url)
    token = folder_token(own_url)
    return url.with_query(token) if url and token else url


def _url_of(location: str, own_path: str, own_url: SecretUrl) -> SecretUrl | None:
    """Do `map_path` without a query."""
    parts = urlsplit(own_url.reveal())
    path_segments, url_segments = own_path.split("/"), [unquote(segment) for segment in parts.path.split("/")]
    common = 0
    for one, other in zip(reversed(path_segments[3:]), reversed(url_segments[1:]), strict=False):
        if one != other:
            break
        common += 1
    if not common:
        return None
    root = "/".join(path_segments[:-common]) + "/"
    below = location.removeprefix(root)
    if below == location or not below or not {".", ".."}.isdisjoint(below.split("/")):
        return None
    raw_segments = parts.path.split("/")
    path = "/".join([*raw_segments[:-common], *(quote(segment) for segment in below.split("/"))])
    return SecretUrl(f"{parts.scheme}://{parts.netloc}{path}")
