"""Build the manifest of what was copied, if it may be committed now."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.core.attempt import doubts
from archiver.core.attempt.context import Attempt
from archiver.core.attempt.copied import Copied
from archiver.core.attempt.folders import Folder
from archiver.core.contents.base import Contents
from archiver.core.errors import Doubtful, IncompleteContents
from archiver.core.records.commit import says_the_same
from archiver.core.records.manifest import Manifest, new_manifest
from archiver.hms.models import Asset
from archiver.transfer.errors import SourceUnavailable, UnexpectedContent


def committable_manifest(
    attempt: Attempt,
    asset: Asset,
    folder: Folder,
    contents: Contents,
    copied: Copied,
    present: Mapping[str, Manifest],
) -> Manifest:
    """Raises Doubtful, SourceError, IncompleteContents when nothing is to be committed yet."""
    row, rules, now = attempt.row, attempt.deps.rules, attempt.deps.clock()
    found = list(dict.fromkeys([*contents.notes.doubts, *copied.doubts]))
    if not copied.has_media:
        if copied.worst is not None and not isinstance(copied.worst, UnexpectedContent):
            raise copied.worst
        if copied.worst is None:
            raise IncompleteContents(doubts.in_words(found) or "the asset has no media")
    name = doubts.fingerprint(contents.version, found, copied.objects, exact=contents.version_is_exact)
    name = doubts.counted_as(row, name)
    manifest = new_manifest(
        asset,
        folder=folder.path,
        form=contents.form,
        # of a tree, all its playlists: known only now, when it was walked
        version=str(contents.notes.facts.get("playlists_sha256") or contents.version),
        objects=copied.objects,
        warnings=(*contents.notes.warnings, *copied.warnings),
        facts=contents.notes.facts,
        now=now,
        archiver_version=rules.archiver_version,
        fence=attempt.heartbeat.lease.fence,
        doubts=tuple(str(doubt) for doubt in found),
        missing=tuple(doubt.path for doubt in found if doubt.missing and doubt.path),
        fingerprint=name,
    )
    known = any(each.fingerprint == name or says_the_same(each, manifest) for each in present.values())
    if found and not known and not doubts.may_keep(row, now, rules.keeping, found, name):
        busy = copied.worst if isinstance(copied.worst, SourceUnavailable) else None
        may_change = doubts.is_near(row, now, rules.keeping) or any(doubt.unready for doubt in found)
        raise Doubtful(
            doubts.in_words(found),
            None if may_change else name,
            busy=busy is not None,
            retry_after=busy.retry_after if busy else None,
        )
    return manifest
