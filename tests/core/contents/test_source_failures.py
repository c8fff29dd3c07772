"""What a failure says of an object is the same at every attempt, whatever host and signed path it had."""

from __future__ import annotations

import pytest

from archiver.core.contents.base import Doubt
from archiver.core.contents.source_failures import in_words
from archiver.transfer.errors import (
    ErrorPage,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    StillEncoded,
    UnexpectedContent,
)

ADDRESS = "https://edge-7.example.com/token=SECRET/a.ts"


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (SourceGone(f"{ADDRESS} answered 404"), "it is missing at the source (404 or 410)"),
        (SourceForbidden(f"{ADDRESS} answered 403"), "the source refuses it (401 or 403)"),
        (SourceUnavailable(f"{ADDRESS}: timeout"), "the source does not answer for it now"),
        (SourceNotAllowed(f"{ADDRESS} is private"), "its address is refused by the address policy"),
        (ErrorPage(f"{ADDRESS}: HTML"), "the source answers with an error page"),
        (StillEncoded(ADDRESS, "is encoded as br"), "it is encoded as br"),
        (UnexpectedContent("a.ts: expected text"), "a.ts: expected text"),
        (SourceChanged(f"{ADDRESS} had 7 bytes, and has 8"), "it changes while it is read"),
        (SourceMismatch(f"{ADDRESS} answered 418"), "it cannot be read: it answered 418"),
        (SourceMismatch(f"{ADDRESS}: a bad head"), "it cannot be read: it: a bad head"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, SourceError) else "",
)
def test_a_failure_is_described_without_an_address(error: SourceError, reported: str) -> None:
    assert in_words(error) == reported


@pytest.mark.parametrize(
    ("path", "what", "reported"),
    [
        ("low/s.ts", "low/s.ts: expected text", "low/s.ts: expected text"),
        ("low/s.ts", "s.ts: expected text", "low/s.ts: expected text"),
        ("low/s.ts", "ts: expected text", "low/s.ts: ts: expected text"),
        ("low/s.ts", "it is missing", "low/s.ts: it is missing"),
        (None, "two layers are missing", "two layers are missing"),
    ],
)
def test_a_doubt_names_its_object_once(path: str | None, what: str, reported: str) -> None:
    assert str(Doubt(what, path)) == reported
