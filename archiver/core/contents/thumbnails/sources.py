"""Read one thumbnail, and check what may be stored for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from archiver.core.contents import sniff, texts
from archiver.core.contents.base import Notes
from archiver.core.contents.error_pages import Likeness, likeness
from archiver.core.contents.sniff import Kind
from archiver.transfer.addresses import SourceAddress
from archiver.transfer.base import Check, Reader, Source, SourceInfo
from archiver.transfer.errors import (
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceNotAllowed,
    SourceUnavailable,
    UnexpectedContent,
)
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.source import as_sent, plain
from archiver.transfer.urls import Origin

_MOST_HOPEFUL_FIRST = (SourceUnavailable, SourceForbidden, SourceGone, SourceNotAllowed)
"""Errors of opening a source, by how likely a retry helps."""

_OCTETS = "application/octet-stream"
_OTHER_IMAGES = (b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0")
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"jxl ")


class OriginCookies:
    """The cookies that the response for one file sets, requested once. Thread-safe."""

    def __init__(self, client: HttpClient, file: SourceAddress) -> None:
        self._client = client
        self._file = file
        self._lock = threading.Lock()
        self._found: tuple[Origin, str] | None = None

    def header_for(self, origin: Origin) -> str:
        """Return the value of a Cookie header; empty for another origin than the one that set them."""
        with self._lock:
            if self._found is None:
                self._found = self._ask(origin)
            return self._found[1] if self._found[0] == origin else ""

    def _ask(self, origin: Origin) -> tuple[Origin, str]:
        try:
            response = self._client.get(self._file.current(), {"Range": "bytes=0-0"})
        except SourceError:
            return origin, ""
        response.close()
        pairs = [value.partition(";")[0].strip() for value in response.cookies]
        return response.url.origin, "; ".join(pair for pair in pairs if pair.find("=") > 0)


class CookieRetry:
    """`transfer.addresses.SourceAddress` that retries with `cookies` after a refusal."""

    def __init__(self, address: Address, cookies: OriginCookies) -> None:
        self._current = address
        self._cookies = cookies
        self._lock = threading.Lock()

    def current(self) -> Address:
        return self._current

    peek = current

    def renew(self, failed: Address) -> Address:
        with self._lock:
            header = self._cookies.header_for(failed.url.origin)
            if self._current is failed and header and "Cookie" not in failed.headers:
                self._current = replace(failed, headers={**failed.headers, "Cookie": header})
            return self._current


class FirstAvailable:
    """`transfer.base.Source` of the first of several sources that can be opened. If none can, raises the error most
    worth a retry: gone in one and busy in another is busy."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(sources)
        self._chosen = self._sources[0]

    @property
    def name(self) -> str:
        return self._chosen.name

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        errors: list[SourceError] = []
        for source in self._sources:
            try:
                opened = source.open(first_bytes)
            except _MOST_HOPEFUL_FIRST as error:
                errors.append(error)
                continue
            self._chosen = source
            return opened
        raise min(errors, key=_hope)

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        self._chosen.read_range(start, into, info)

    def plain(self) -> FirstAvailable:
        return FirstAvailable([plain(source) for source in self._sources])

    def as_sent(self) -> FirstAvailable:
        return FirstAvailable([as_sent(source) for source in self._sources])


def image_check(path: str, notes: Notes) -> Check:
    """Make a check of the thumbnail at `path`. It raises ErrorPage; UnexpectedContent for an empty body, for a possible
    error page, and for SVG or other markup that a browser would render. Anything else that is not an image is stored,
    with a warning in `notes`."""
    expect_image = sniff.check_for(Kind.IMAGE, path)
    stored_as_octets = sniff.content_type(path) == _OCTETS
    warning = f"{path} is stored as it came, and is no image"

    def check(start: bytes, info: SourceInfo | None) -> None:
        if _is_image(start):
            return
        is_markup = texts.is_markup(start)
        try:
            expect_image(start, info)
        except UnexpectedContent:
            is_perhaps_an_error = likeness(start, info, is_media=True) is not Likeness.NONE
            if not start or is_perhaps_an_error or (is_markup and not stored_as_octets):
                raise
        if not (is_markup and b"<svg" in start) and warning not in notes.warnings:
            notes.warnings.append(warning)

    return check


def _is_image(start: bytes) -> bool:
    is_boxed = start[4:8] == b"ftyp" and start[8:12] in _IMAGE_BRANDS
    return sniff.agrees(Kind.IMAGE, "", start) or start.startswith(_OTHER_IMAGES) or is_boxed


def _hope(error: SourceError) -> int:
    return next(number for number, kind in enumerate(_MOST_HOPEFUL_FIRST) if isinstance(error, kind))
