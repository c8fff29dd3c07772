"""The engine's journal of unfinished uploads, kept in the ledger. Best effort: a ledger that is down costs a part
that is sent twice, never a copy. An upload that cannot be resumed is restarted, and the log says why."""

from __future__ import annotations

import structlog

from archiver.ledger.base import CopyJournal
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import Lease, OpenUpload
from archiver.transfer.base import SavedUpload
from storage_backends.base import ObjectKey, Part

log = structlog.get_logger(__name__)


class LedgerUploadJournal:
    """transfer.base.UploadJournal for the asset of one lease."""

    def __init__(self, ledger: CopyJournal, lease: Lease) -> None:
        self._ledger = ledger
        self._lease = lease
        self._known: dict[tuple[str, ObjectKey], OpenUpload] = {}  # found unfinished; a handful

    def load(self, store: str, key: ObjectKey) -> SavedUpload | None:
        try:
            found = self._ledger.load_upload(self._lease.asset_id, store, key)
        except LedgerUnavailable as error:
            log.warning("upload_journal_unavailable", asset_id=self._lease.asset_id, error=str(error))
            return None
        if found is None:
            return None
        self._known[store, key] = found
        parts = {n: Part(n, size, crc, tag) for n, (size, crc, tag) in found.parts.items()}
        return SavedUpload(found.token, found.size_bytes, found.part_bytes, found.source_etag, parts)

    def begun(self, store: str, key: ObjectKey, upload: SavedUpload) -> None:
        parts = {n: (part.size_bytes, part.crc32c, part.tag) for n, part in upload.parts.items()}
        record = OpenUpload(upload.token, upload.size_bytes, upload.part_bytes, upload.source_etag, parts)
        earlier = self._known.pop((store, key), None)
        if earlier is not None:
            log.warning(
                "upload_begun_again",
                asset_id=self._lease.asset_id,
                store=store,
                key=key,
                reason=_what_changed(earlier, record),
            )
        try:
            self._ledger.save_upload(self._lease, store, key, record)
        except LedgerUnavailable as error:
            log.warning("upload_journal_unavailable", asset_id=self._lease.asset_id, error=str(error))

    def part_done(self, store: str, key: ObjectKey, part: Part) -> None:
        receipt = (part.size_bytes, part.crc32c, part.tag)
        try:
            self._ledger.add_part(self._lease, store, key, part.number, receipt)
        except LedgerUnavailable as error:
            log.warning("upload_journal_unavailable", asset_id=self._lease.asset_id, error=str(error))

    def forget(self, store: str, key: ObjectKey) -> None:
        try:
            self._ledger.forget_upload(self._lease.asset_id, store, key)
        except LedgerUnavailable as error:
            log.warning("upload_journal_unavailable", asset_id=self._lease.asset_id, error=str(error))


def _what_changed(earlier: OpenUpload, now: OpenUpload) -> str:
    if (earlier.source_etag, earlier.size_bytes) != (now.source_etag, now.size_bytes):
        return "the source changed since another worker began it"
    if earlier.part_bytes != now.part_bytes:
        return f"its parts were of {earlier.part_bytes} bytes, and are of {now.part_bytes} now"
    return "the store does not know it any more, or holds other bytes than another store"
