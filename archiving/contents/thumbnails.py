"""Thumbnails of an asset. The API gives storage paths and signs none of them, so each is fetched

    from its URL, where the API gives one after all;
    else from where the asset's own path and URL say that it must be, unless the signature covers one file alone;
    else, or if that is refused, from the signed URL of a webhook, where one was stored.

What cannot be had is a warning in the manifest, never a failure of the asset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from archiving.contents import sniff
from archiving.contents.access import folder_token, signs_one_object
from archiving.contents.base import Contents, Item, Notes
from archiving.contents.sniff import Kind
from archiving.keys import thumbnail_path
from hms.models import Asset
from transfer.errors import SourceNotAllowed
from transfer.http import HttpClient
from transfer.source import Address, HttpSource, SecretUrl, SourceAddress

MAX_THUMBNAILS = 1000
_FIELDS = ("url", "location", "path")


class WithThumbnails:
    """`contents` and, before anything else of it, the thumbnails of `asset`, each of them optional."""

    def __init__(
        self,
        contents: Contents,
        asset: Asset,
        *,
        client: HttpClient,
        own: SourceAddress,
        from_webhook: Mapping[str, SecretStr],
    ) -> None:
        """`own` is the address of the asset itself; `from_webhook` has signed URLs by storage path."""
        self._contents = contents
        self._asset = asset
        self._client = client
        self._own = own
        self._from_webhook = from_webhook

    @property
    def form(self) -> str:
        return self._contents.form

    @property
    def version(self) -> str:
        return self._contents.version

    @property
    def notes(self) -> Notes:
        return self._contents.notes

    def items(self) -> Iterator[Item]:
        taken: set[str] = set()
        listed = self._asset.thumbnails
        thumbnails = [*listed, *(path for path in self._from_webhook if path not in _locations(listed))]
        for number, thumbnail in enumerate(thumbnails[:MAX_THUMBNAILS]):
            location, url = _location_and_url(thumbnail)
            addresses = self._addresses(location, url)
            if not addresses:
                shown = location or (SecretUrl(url).name if url else "without a path")
                self._warn(f"thumbnail {shown} could not be had: {self._why(location)}")
                continue
            path = thumbnail_path(_file_name(location, url))
            if path in taken:
                path = thumbnail_path(f"{number}-{_file_name(location, url)}")
            taken.add(path)
            yield Item(
                path=path,
                content_type=sniff.content_type(path),
                source=HttpSource(self._client, _FirstThatAnswers(addresses)),
                check=sniff.check_for(Kind.IMAGE, path),
                optional=True,
            )
        if (left_out := len(thumbnails) - MAX_THUMBNAILS) > 0:
            self._warn(f"{left_out} thumbnails beyond the first {MAX_THUMBNAILS} were left out")
        yield from self._contents.items()

    def _addresses(self, location: str | None, url: str | None) -> list[Address]:
        stored = self._from_webhook.get(location or "")
        candidates = (
            _handed_out(url),
            self._mapped(location),
            _handed_out(stored.get_secret_value() if stored else None),
        )
        return [address for address in candidates if address is not None]

    def _mapped(self, location: str | None) -> Address | None:
        if not location or not self._asset.path:
            return None
        own = self._own.current()
        if signs_one_object(own.url):
            return None
        url = map_path(location, self._asset.path, own.url)
        return Address(url, own.headers, own.handed_out) if url else None

    def _why(self, location: str | None) -> str:
        if location is None:
            return "the API gives neither a path nor a usable URL of it"
        if self._asset.path and signs_one_object(self._own.current().url):
            return "the API signs none, the asset's own signature covers one file alone, and no webhook brought a URL"
        return "it does not lie beside the asset, and no webhook brought a URL"

    def _warn(self, text: str) -> None:
        self.notes.warnings.append(text)


class _FirstThatAnswers:
    """Tries one address after the other: the next when one is refused."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = list(addresses)

    def current(self) -> Address:
        return self._addresses[0]

    def renew(self, failed: Address) -> Address:
        if failed is self._addresses[0] and len(self._addresses) > 1:
            self._addresses.pop(0)
        return self._addresses[0]


def map_path(location: str, own_path: str, own_url: SecretUrl) -> SecretUrl | None:
    """The URL of the file at storage path `location`, given that `own_path` is found at `own_url`: what both end
    with is the same file below two roots. None when they have no end in common, or `location` lies below another
    root. The query is carried over only where it is a token for a folder."""
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
    if below == location or not below or ".." in below.split("/"):
        return None
    raw_segments = parts.path.split("/")
    path = "/".join([*raw_segments[:-common], *(quote(segment) for segment in below.split("/"))])
    query = folder_token(own_url)
    return SecretUrl(f"{parts.scheme}://{parts.netloc}{path}{'?' if query else ''}{query}")


def _handed_out(url: str | None) -> Address | None:
    """A URL that the API or its webhook gave; None when it is none that can be read."""
    if not url:
        return None
    secret = SecretUrl(url)
    try:
        return Address(secret, handed_out=frozenset({secret.origin}))
    except SourceNotAllowed:
        return None


def _location_and_url(thumbnail: object) -> tuple[str | None, str | None]:
    """Documented are storage paths; a URL, or an object as in the webhook, must be expected."""
    given = [thumbnail.get(key) for key in _FIELDS] if isinstance(thumbnail, Mapping) else [thumbnail]
    texts = [text for text in given if isinstance(text, str) and text]
    urls = [text for text in texts if text.lower().startswith(("https://", "http://"))]
    paths = [text for text in texts if text not in urls]
    return next(iter(paths), None), next(iter(urls), None)


def _locations(thumbnails: Iterable[object]) -> set[str | None]:
    return {_location_and_url(thumbnail)[0] for thumbnail in thumbnails}


def _file_name(location: str | None, url: str | None) -> str:
    path = location or (urlsplit(url).path if url else "")
    return path.rsplit("/", 1)[-1] or "thumbnail.png"
