"""The response to a GetObject of a range: the bytes asked for, or an error."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from archiver.http.errors import InvalidResponse
from archiver.http.transfer import Transfer
from storage_backends.s3.errors import UnlikeS3

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_PIECE_BYTES = 1024 * 1024
_ERROR_BYTES = 64 * 1024


class Enough(Exception):
    """All that was asked for came; the server goes on."""


class RangeReading:
    """Reads one response, by our client or boto3: the bytes `[start, start + length_bytes)` of an object, fewer only
    where it ends. `length_bytes`: not 0; None: all from `start`."""

    def __init__(self, start: int, length_bytes: int | None) -> None:
        self._start = start
        self._length_bytes = length_bytes
        self._expected_bytes = 0
        self._skip_bytes = 0
        self._picked: bytearray | None = None  # out of a whole object

    @property
    def range(self) -> str:
        """The Range header of the request (RFC 9110, section 14.2)."""
        last = "" if self._length_bytes is None else self._start + self._length_bytes - 1
        return f"bytes={self._start}-{last}"

    # -- from our own client ---------------------------------------------------------------------------------
    def decide(self, transfer: Transfer) -> None:
        """A `Decide`. Raises InvalidResponse for another range, and UnlikeS3."""
        head = transfer.head
        assert head is not None, "there is one when this is called"
        if head.status >= 300:
            transfer.limit(_ERROR_BYTES)
            return
        self._expect(head.status, head.headers.get("content-range"), head.length_bytes)
        if head.length_bytes not in (None, self._expected_bytes):
            self._picked = bytearray()
            transfer.consume(self._pick)
        elif self._length_bytes is not None:
            transfer.limit(self._expected_bytes)

    def _pick(self, piece: bytes) -> None:
        assert self._picked is not None
        skipped = min(self._skip_bytes, len(piece))
        self._skip_bytes -= skipped
        self._picked += piece[skipped : skipped + self._expected_bytes - len(self._picked)]
        if len(self._picked) == self._expected_bytes:
            raise Enough

    def body_of(self, transfer: Transfer) -> bytes:
        """Raises InvalidResponse when bytes are missing."""
        return self._whole(transfer.take_body() if self._picked is None else bytes(self._picked))

    # -- from boto3 ------------------------------------------------------------------------------------------
    def out_of(self, answer: Mapping[str, Any]) -> bytes:
        """Read the body of `answer`, and close it. Raises as `decide` and `body_of`, and boto3's errors."""
        with contextlib.closing(answer["Body"]) as body:
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            self._expect(status, answer.get("ContentRange"), answer.get("ContentLength"))
            while self._expected_bytes and self._skip_bytes:
                if not (skipped := body.read(min(self._skip_bytes, _PIECE_BYTES))):
                    break
                self._skip_bytes -= len(skipped)
            return self._whole(body.read(self._expected_bytes) if self._expected_bytes else b"")

    # -- from either -----------------------------------------------------------------------------------------
    def _expect(self, status: int, content_range: str | None, body_bytes: int | None) -> None:
        if status == 200 and content_range is None:  # the server ignores Range: this is the whole object
            if body_bytes is None:
                raise UnlikeS3("ContentLength")
            self._skip_bytes = self._start
            stop = self._stop(body_bytes)
            self._expected_bytes = max(0, stop - self._start)
            return
        if status not in (200, 206):
            raise UnlikeS3("an object")
        found = _CONTENT_RANGE.fullmatch(content_range or "")
        if found is None:
            raise InvalidResponse("the server sent a part without saying which")
        first, stop = int(found[1]), int(found[2]) + 1
        # of an object of unknown size only as many bytes as were asked for are surely all of them
        total_bytes = None if found[3] == "*" else int(found[3])
        if first != self._start or stop != self._stop(total_bytes) or body_bytes not in (None, stop - first):
            raise InvalidResponse("the server sent another range than the one requested")
        self._expected_bytes = stop - first

    def _stop(self, total_bytes: int | None) -> int:
        """Return where the bytes asked for end; -1: unknown."""
        asked = None if self._length_bytes is None else self._start + self._length_bytes
        return min([stop for stop in (asked, total_bytes) if stop is not None], default=-1)

    def _whole(self, data: bytes) -> bytes:
        if len(data) != self._expected_bytes:
            raise InvalidResponse(f"{len(data)} bytes arrived, {self._expected_bytes} were expected")
        return data
