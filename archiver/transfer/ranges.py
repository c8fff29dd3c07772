"""Checks of responses to range requests (RFC 9110, section 14.4): the bytes asked for, of the same file."""

from __future__ import annotations

import re

from archiver.transfer.announced import source_info
from archiver.transfer.base import SourceInfo
from archiver.transfer.bodies import Named
from archiver.transfer.codings import codings_in
from archiver.transfer.errors import RangesUnreliable, SourceChanged
from archiver.transfer.http import Response, refusal

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def first_range(response: Response, first_bytes: int, source: Named) -> SourceInfo:
    """Describe `source` by a 206, which must hold its first bytes: as many as were asked for, or exist. Raises
    RangesUnreliable."""
    _check_not_encoded(response, source)
    start, end, total = _content_range(response)
    if start != 0 or total is None or end + 1 != min(first_bytes, total):
        raise RangesUnreliable(
            f"{source.name} was asked for its first {first_bytes} bytes and sent {start} to {end} of {total}"
        )
    _check_length(response, end + 1)
    return source_info(response, total, ranges=True)


def check_range(response: Response, start: int, size_bytes: int, info: SourceInfo, source: Named) -> None:
    """Raises SourceChanged for another version of the file, RangesUnreliable for other bytes of it."""
    etag, modified = response.headers.get("etag"), response.headers.get("last-modified")
    if 200 <= response.status < 300:
        if etag and info.etag and etag != info.etag:
            raise SourceChanged(f"{source.name} has another ETag than at the start")
        if not etag and not info.etag and modified and info.last_modified and modified != info.last_modified:
            raise SourceChanged(f"{source.name} has another date than at the start")
    if response.status == 200:
        raise RangesUnreliable(f"{source.name} answered a range with the whole file")
    if response.status != 206:
        raise refusal(response, later_range=True)
    got_start, got_end, total = _content_range(response)
    if total is not None and total != info.size_bytes:
        raise SourceChanged(f"{source.name} had {info.size_bytes} bytes at the start and has {total} now")
    if etag != info.etag or (etag is None and modified != info.last_modified):
        raise RangesUnreliable(f"{source.name} does not say of a range which version of the file it is from")
    if (got_start, got_end) != (start, start + size_bytes - 1):
        raise RangesUnreliable(
            f"{source.name} was asked for bytes {start} to {start + size_bytes - 1}, sent {got_start} to {got_end}"
        )
    _check_not_encoded(response, source)
    _check_length(response, size_bytes)


def _check_not_encoded(response: Response, source: Named) -> None:
    if codings_in(response.headers):
        raise RangesUnreliable(f"{source.name} sent a range of an encoded form of the file")


def _content_range(response: Response) -> tuple[int, int, int | None]:
    """First byte, last byte, total of a 206."""
    text = response.headers.get("content-range") or ""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match:
        start, end = int(match.group(1)), int(match.group(2))
        total = None if match.group(3) == "*" else int(match.group(3))
        if start <= end and (total is None or end < total):
            return start, end, total
    if (response.headers.get("content-type") or "").lower().startswith("multipart/byteranges"):
        raise RangesUnreliable(f"{response.url.name} answered one range with several (multipart/byteranges)")
    raise RangesUnreliable(f"{response.url.name} answered 206 with Content-Range {text[:80]!r}")


def total_bytes_of(response: Response) -> int | None:
    """Of a 206 that says so, and is not of an encoded form."""
    try:
        return None if codings_in(response.headers) else _content_range(response)[2]
    except RangesUnreliable:
        return None


def is_whole(response: Response) -> bool:
    """Return whether a 206 holds everything, from the first byte to the last."""
    try:
        start, end, total = _content_range(response)
    except RangesUnreliable:
        return False
    return start == 0 and end + 1 == total and response.head.length_bytes in (None, total)


def _check_length(response: Response, size_bytes: int) -> None:
    announced = response.head.length_bytes
    if announced is not None and announced != size_bytes:
        raise RangesUnreliable(
            f"{response.url.name} announced {announced} bytes (Content-Length) for a range of {size_bytes}"
        )
