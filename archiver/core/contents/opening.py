"""Open an asset: its first bytes decide whether it is a zip, an HLS tree or one file."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import SecretStr

from archiver.core.contents import error_pages, sniff
from archiver.core.contents.base import Contents, Doubt
from archiver.core.contents.containers import has_structure
from archiver.core.contents.error_pages import Likeness
from archiver.core.contents.hls.facts import Expected
from archiver.core.contents.hls.store_source import SourceStore, no_source_store, tree_access
from archiver.core.contents.hls.tree import HlsContents, HlsLimits
from archiver.core.contents.single_file import SingleFile, file_name
from archiver.core.contents.sniff import Kind
from archiver.core.contents.thumbnails.thumbnails import WithThumbnails
from archiver.core.contents.zip.directory import ZipLimits
from archiver.core.contents.zip.zipped import ZipContents, ZipMode
from archiver.hms.base import RecordingAssets
from archiver.hms.models import Asset, AssetType
from archiver.http.waiting import pause
from archiver.retry_policy import REQUEST, RetryPolicy
from archiver.transfer.addresses import RenewableUrl, SourceAddress
from archiver.transfer.base import Source, SourceInfo
from archiver.transfer.errors import ErrorPage, SourceUnavailable, StillEncoded
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource, as_sent
from archiver.transfer.urls import SecretUrl

_GZIP = b"\x1f\x8b"

SMALL_BYTES = 256 * 1024
"""First request for a file that may be no larger, so that one request gets all of it."""
_SMALL_TYPES = frozenset({AssetType.CHAT, AssetType.TRANSCRIPT, AssetType.SUMMARY})

WebhookThumbnails = Callable[[str], Mapping[str, SecretStr]]
"""Map an asset id to signed thumbnail URLs by storage path, from webhooks."""


def no_webhooks(_: str) -> Mapping[str, SecretStr]:
    return {}


@dataclass(frozen=True, slots=True)
class OpeningRules:
    """The settings that opening needs."""

    zip_mode: ZipMode = ZipMode.UNPACK
    sign_for: timedelta = timedelta(hours=1)  # as the API's own SDK requests; renewed when it expires
    hls: HlsLimits = field(default_factory=HlsLimits)
    zip: ZipLimits = field(default_factory=ZipLimits)
    policy: RetryPolicy = REQUEST


class ContentsOpener:
    """Callable as `core.attempt.context.OpenContents`. One for all assets. Thread-safe."""

    def __init__(
        self,
        api: RecordingAssets,
        client: HttpClient,
        rules: OpeningRules = OpeningRules(),
        webhook_thumbnails: WebhookThumbnails = no_webhooks,
        sleep: Callable[[float], None] = pause,
        source_store: SourceStore = no_source_store,
        memory: MemoryBudget | None = None,
    ) -> None:
        """`memory`: budget for reading zips ahead; see `ReadAhead`."""
        self._api = api
        self._client = client
        self._rules = rules
        self._webhook_thumbnails = webhook_thumbnails
        self._sleep = sleep
        self._source_store = source_store
        self._memory = memory

    def __call__(self, asset: Asset) -> Contents:
        """Open the contents of `asset`. Raises HmsError, SourceError, ContentsError; ErrorPage for an error page in its
        place."""

        def sign() -> SecretUrl:
            return SecretUrl(self._api.sign(asset.id, self._rules.sign_for).url.get_secret_value())

        address = RenewableUrl(sign)
        contents = self._open(asset, address)
        # only VODs have thumbnails; a webhook may have named some that the listing does not
        stored = self._webhook_thumbnails(asset.id) if asset.type == AssetType.ROOM_VOD else {}
        if not asset.thumbnails and not stored:
            return contents
        return WithThumbnails(contents, asset, client=self._client, own=address, from_webhook=stored)

    def _open(self, asset: Asset, address: SourceAddress) -> Contents:
        source = HttpSource(self._client, address)
        try:
            info, start = self._first_bytes(source, whole=_is_small(asset))
        except StillEncoded as error:
            return self._open_as_sent(asset, as_sent(source), Doubt(f"the file {error.what}"))
        is_vod = asset.type == AssetType.ROOM_VOD
        kind = sniff.sniff(start)
        if kind is Kind.PLAYLIST or (is_vod and _is_gzipped_playlist(start)):
            return HlsContents(
                self._client,
                address,
                expected=_expected(asset),
                limits=self._rules.hls,
                sleep=self._sleep,
                open_access=tree_access(asset.path, self._source_store),
            )
        version = _version(asset, info)
        if is_vod and kind is Kind.ZIP:
            return ZipContents(
                source,
                info,
                name=_zip_name(asset),
                version=version,
                version_is_exact=info.strong_etag is not None,
                mode=self._rules.zip_mode,
                expected=_expected(asset),
                limits=self._rules.zip,
                memory=self._memory,
            )
        if is_vod:
            _refuse_errors(asset, source, info, start)
        return SingleFile(
            asset,
            source,
            start=start,
            version=version,
            info=info,
            warnings=_warnings(asset, kind, start),
            doubts=_doubts(asset, kind, start),
        )

    def _open_as_sent(self, asset: Asset, source: Source, doubt: Doubt) -> Contents:
        """Open a file whose content coding cannot be decoded: it is stored as sent."""
        info, start = self._first_bytes(source)
        version = _version(asset, info)
        return SingleFile(asset, source, start=start, version=version, info=info, doubts=[doubt])

    def _first_bytes(self, source: Source, *, whole: bool = False) -> tuple[SourceInfo, bytes]:
        """Return the first SNIFF_BYTES. `whole`: the first request asks for all of a small file; retries do not."""
        tries = 0

        def once() -> tuple[SourceInfo, bytes]:
            nonlocal tries
            tries += 1
            if tries == 1 and isinstance(source, HttpSource) and whole:
                info, start = source.peek(SMALL_BYTES)
                return info, start[: sniff.SNIFF_BYTES]
            return _first_bytes(source)

        return self._rules.policy.call(once, lambda error: isinstance(error, SourceUnavailable))


def _refuse_errors(asset: Asset, source: Source, info: SourceInfo, start: bytes) -> None:
    """Raise ErrorPage for an error page, or an empty body, in place of a VOD."""
    like = error_pages.likeness(start, info, asset.size_bytes, is_media=True)
    if not start or like is Likeness.ERROR:
        raise ErrorPage(f"{source.name}: expected a playlist or a zip, got {sniff.describe(start)}")


def _is_small(asset: Asset) -> bool:
    """Tell by size, or by type where the API gives none. Not for media: doubtful ones are opened about daily."""
    return asset.size_bytes <= SMALL_BYTES if asset.size_bytes else asset.type in _SMALL_TYPES


def _first_bytes(source: Source) -> tuple[SourceInfo, bytes]:
    info, reader = source.open(sniff.SNIFF_BYTES)
    try:
        start = memoryview(bytearray(sniff.SNIFF_BYTES))
        filled = 0
        while filled < len(start) and (count := reader.readinto(start[filled:])):
            filled += count
        return info, bytes(start[:filled])
    finally:
        reader.close()


def _version(asset: Asset, info: SourceInfo) -> str:
    """Name the file's content by its validators (RFC 9110, section 8.8); without any, by what the API says: a completed
    recording does not change."""
    validators = [info.etag] if info.etag else [info.last_modified, info.size_bytes]
    if not info.etag and not info.last_modified:
        validators = [asset.id, asset.path, asset.size_bytes, str(asset.created_at), info.size_bytes]
    return hashlib.sha256(repr(validators).encode()).hexdigest()


def _zip_name(asset: Asset) -> str:
    name = file_name(asset, b"PK\x03\x04")
    return name if sniff.extension(name) == "zip" else f"{name}.zip"


def _is_gzipped_playlist(start: bytes) -> bool:
    """Tell a playlist served as gzip, which `fetch_bytes` decodes."""
    if not start.startswith(_GZIP):
        return False
    try:
        return sniff.sniff(zlib.decompressobj(wbits=31).decompress(start)) is Kind.PLAYLIST
    except zlib.error:
        return False


def _warnings(asset: Asset, kind: Kind | None, start: bytes) -> list[str]:
    if asset.type == AssetType.ROOM_VOD and has_structure(kind, start) and kind is not None:
        return [f"a room-vod that is {kind.value}, neither a playlist nor a zip: stored as a single file"]
    if asset.type not in set(AssetType):
        return [f"the type {asset.type!r} is not known to this version: stored as a single file"]
    return []


def _doubts(asset: Asset, kind: Kind | None, start: bytes) -> list[Doubt]:
    if asset.type == AssetType.ROOM_VOD and not has_structure(kind, start):
        return [Doubt(f"a room-vod that is {sniff.describe(start)}, neither a playlist nor a zip")]
    return []


def _expected(asset: Asset) -> Expected:
    layers = asset.metadata.get("num_layers")
    text = str(layers) if isinstance(layers, int | str) else ""
    return Expected(
        layers=int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None,
        duration_seconds=asset.duration_seconds or None,
    )
