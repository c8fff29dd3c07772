"""Decide when an asset with doubts is stored, and whether two attempts found the same. Pure.

It is stored, its doubts in the manifest, when `mismatch_attempts` attempts in a row found the same. What the source may
still complete is stored only near the deadline, whatever earlier attempts found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.contents.base import Doubt
from archiver.core.deadlines import source_ends_at
from archiver.core.records.manifest import Manifest, ManifestObject
from archiver.ledger.models import Row

SHOWN = 5  # doubts in a reason; the manifest has all
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class KeepingRules:
    """`attempts` in a row must find the same. `near`: the time left to the deadline from which an asset is stored
    although its source may still complete it."""

    attempts: int
    near: timedelta


def is_near(row: Row, now: datetime, rules: KeepingRules) -> bool:
    """Return whether the deadline is so near that waiting for a better copy is a risk."""
    return source_ends_at(row) - now <= rules.near


def keeps_now(row: Row, rules: KeepingRules) -> bool:
    """Return whether this attempt stores what it finds, with its doubts, if it finds the same again."""
    return row.mismatches + 1 >= rules.attempts


def may_keep(row: Row, now: datetime, rules: KeepingRules, doubts: Sequence[Doubt], found: str) -> bool:
    """Return whether what this attempt `found` may be committed now."""
    if not keeps_now(row, rules):
        return False
    if is_near(row, now, rules):
        return True
    return row.fingerprint == found and not any(doubt.unready for doubt in doubts)


def fingerprint(
    version: str, doubts: Iterable[Doubt], objects: Iterable[ManifestObject], *, exact: bool
) -> str:
    """Return an id of what an attempt found: equal for the same doubts about the same bytes.

    Begins with `exact_prefix(version)` where the version alone identifies the bytes.
    """
    described = sorted((doubt.path or "", doubt.what) for doubt in doubts)
    doubtful = {path for path, _ in described}
    # what is doubtful is stored by the last attempt alone
    stored = sorted((item.path, item.size, item.crc32c) for item in objects if item.path not in doubtful)
    found = json.dumps([described, [] if exact else stored], ensure_ascii=False)
    digest = hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{exact_prefix(version) if exact else ''}{digest}"


def counted_as(row: Row, found: str) -> str:
    """Return the last attempt's fingerprint if `found` differs from it in the version only, else `found`.

    A server that sends another ETag with each response must not keep the asset from being stored.
    """
    last = row.fingerprint or ""
    return last if "-" in last and "-" in found and last.split("-")[1] == found.split("-")[1] else found


def exact_prefix(version: str) -> str:
    return f"{hashlib.sha256(version.encode()).hexdigest()[:_DIGITS]}-"


def same_bytes_again(row: Row, version: str) -> bool:
    """Return whether the last attempt had doubts about exactly the bytes of `version`."""
    return bool(row.fingerprint and row.fingerprint.startswith(exact_prefix(version)))


def in_words(doubts: Sequence[object]) -> str:
    """Name the first SHOWN of them, and how many more there are."""
    shown = "; ".join(str(doubt) for doubt in doubts[:SHOWN])
    more = len(doubts) - SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown


def reason_kept(manifest: Manifest, note: str = "") -> str:
    """Say for `status` why an asset is quarantined."""
    words = f"stored, with doubts: {in_words(manifest.doubts or ())}"
    return f"{words}; {note}" if note else words
