"""Find out whether a tree changed at its source while it was copied.

A copy takes minutes to hours, longer if its worker is paused. Each file is of one version, for the engine goes by its
ETag; two files may be of two. The playlists are read again at the end of a long copy: one request each, where asking
for every segment would double a copy's requests. Other segments under an unchanged playlist are not noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt import doubts
from archiver.core.attempt.context import Attempt
from archiver.core.contents.base import Contents, Doubt
from archiver.core.errors import ContentsError
from archiver.hms.errors import HmsError, HmsUnavailable
from archiver.hms.models import Asset
from archiver.http import cancellation
from archiver.transfer.errors import SourceError, SourceUnavailable

log = structlog.get_logger(__name__)

LOOK_AFTER = timedelta(minutes=1)
"""A copy that took no longer is not compared: most trees need no further request."""

CHANGED = "its playlists changed while it was copied: some of its files may be of an older version"


def changed_meanwhile(
    attempt: Attempt, asset: Asset, contents: Contents, started: datetime
) -> Sequence[Doubt]:
    """Return a doubt if the playlists of `contents`, which was copied from `started` on, are others now. None of what
    the source may still complete is compared: it is copied again anyway.

    The next attempt copies what changed, and finds no doubt. Playlists that differ at each read tell nothing. Raises
    SourceUnavailable or HmsUnavailable when the source does not answer, unless the deadline is near; other errors are
    no reason to give up a whole copy.
    """
    copied = contents.notes.facts.get("playlists_sha256")
    now = attempt.deps.clock()
    if copied is None or now - started < LOOK_AFTER or any(doubt.unready for doubt in contents.notes.doubts):
        return ()
    try:
        with cancellation.watched(attempt.heartbeat.check):
            found = _playlists(attempt, asset)
            if found == copied or found != _playlists(attempt, asset):
                return ()
    except (SourceError, HmsError, ContentsError) as error:
        log.warning("tree_not_compared", asset_id=asset.id, reason=str(error))
        is_away = isinstance(error, SourceUnavailable | HmsUnavailable)
        if is_away and not doubts.is_near(attempt.row, now, attempt.deps.rules.keeping):
            raise
        return ()
    log.warning("tree_changed", asset_id=asset.id)
    return (Doubt(CHANGED, unready=True),)


def _playlists(attempt: Attempt, asset: Asset) -> object:
    """Walk the tree without copying it; return the digest of its playlists."""
    contents = attempt.deps.open_contents(asset)
    for item in contents.items():
        if item.chunks is not None:
            item.chunks.skip()
    return contents.notes.facts.get("playlists_sha256")
