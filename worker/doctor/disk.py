"""Check of the free space of a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from worker.doctor.check_result import CheckResult, Verdict
from worker.views.text import size

MIN_FREE_BYTES, LOW_FREE_BYTES, MIN_FREE_FILES = 256 * 2**20, 5 * 2**30, 1000


def check_free_space(subject: str, folder: Path) -> Iterator[CheckResult]:
    """Check the disk under `folder` for free bytes and free inodes."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if existing is None:
        return
    disk = os.statvfs(existing)
    free_bytes, total_bytes = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    few_files = disk.f_files > 0 and disk.f_favail < MIN_FREE_FILES
    if free_bytes >= LOW_FREE_BYTES and not few_files:
        yield CheckResult(
            subject, Verdict.OK, f"{size(free_bytes)} of {size(total_bytes)} are free at {folder}"
        )
        return
    full = free_bytes < MIN_FREE_BYTES or few_files
    if few_files:
        detail = f"only {disk.f_favail:,} more files can be created at {folder}"
    else:
        detail = f"only {size(free_bytes)} of {size(total_bytes)} are free at {folder}"
    yield CheckResult(
        subject,
        Verdict.PROBLEM if full else Verdict.WARNING,
        detail,
        "Free some space, or move it to a larger disk.",
    )
