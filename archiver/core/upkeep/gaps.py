"""What it means that a destination has no manifest of an asset that the ledger calls archived. Pure."""

from __future__ import annotations

from enum import Enum

LARGEST_CHANGE = 20
LARGEST_SHARE = 0.02


class Gap(Enum):
    REOPEN = "100ms still has it: it is copied again"
    FILL = "the destination was added since, and 100ms still has it: it is copied there"
    MISSING_COPY = (
        "the destination was added when 100ms had deleted it: it is whole elsewhere, and only counted"
    )
    DAMAGED = "its copy was removed, 100ms has deleted it, and it is whole elsewhere: a person can restore it"
    VANISHED = "it is nowhere, and 100ms has deleted it: one more attempt, and then it is lost"


def judge_gap(*, over: bool, whole_somewhere: bool, newer: bool, filling: bool, doubted: bool = False) -> Gap:
    """`over`: the source is. `newer`: every destination that lacks it was added empty after the source was over.
    `filling`: every one of them was added, and is still being filled. `doubted`: it is quarantined, so that a person
    looks at it anyway."""
    if not over:
        return Gap.FILL if filling else Gap.REOPEN
    if newer or (doubted and whole_somewhere):
        return Gap.MISSING_COPY
    return Gap.DAMAGED if whole_somewhere else Gap.VANISHED


def limit(archived: int) -> int:
    """How many of `archived` assets one run may take back by itself. More are a wrong bucket, or a mass deletion."""
    return max(LARGEST_CHANGE, int(archived * LARGEST_SHARE))
