"""Decide whether a destination is the one that the ledger knows, by its marker and its manifests. Pure.

An unmounted disk leaves an empty directory under the same name, and a wrong setting names somebody else's bucket: both
answer every call, and everything concluded from them is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from archiver.core.destinations.markers import Marker, NoMarker


class Manifests(Enum):
    """How many of the archived assets have a manifest at the destination."""

    NONE = "it holds no manifest at all"
    FOREIGN = "it holds manifests, and none of those that the ledger knows"
    SOME = "it holds few of the manifests that the ledger knows"
    MOST = "it holds the manifests that the ledger knows"


@dataclass(frozen=True, slots=True)
class Memory:
    """What the ledger remembers. `id`: of the destination of this name; None: not known yet. `intended_id`: of the last
    marker that was about to be written to it. `expected`: a destination of this name existed before markers did, or
    before it could be read. `others`: destinations of other names are remembered. `has_archived`: the ledger has
    archived assets."""

    id: str | None = None
    intended_id: str | None = None
    expected: bool = False
    others: bool = False
    has_archived: bool = False


class IdentityVerdict(Enum):
    KNOWN = "its marker is the one that the ledger remembers"
    ADOPT = "the ledger accepts it from now on, with the marker that is there or a new one"
    NEW = "it was added: empty, while assets are archived elsewhere"
    RESTORE = "its marker is gone and its manifests are there: the marker is written again"
    WRONG = "it is not the destination that the ledger knows: nothing is written, nothing is concluded"


@dataclass(frozen=True, slots=True)
class Identity:
    verdict: IdentityVerdict
    why: str = ""  # for people; empty when KNOWN


def identify(
    memory: Memory, marker: Marker | NoMarker, manifests: Manifests, workspace: str | None
) -> Identity:
    """Return what the destination is to this ledger. `workspace`: our own; None when it is not known."""
    if isinstance(marker, Marker):
        return _marked(memory, marker, manifests, workspace)
    if memory.id is not None:
        if manifests is Manifests.MOST:
            return Identity(IdentityVerdict.RESTORE, f"{marker.value}, and {manifests.value}")
        return Identity(
            IdentityVerdict.WRONG,
            f"{marker.value}, and {manifests.value}: a disk that is not mounted, another bucket, or an emptied one",
        )
    if manifests in (Manifests.SOME, Manifests.MOST):
        restored = marker is NoMarker.UNREADABLE
        return Identity(
            IdentityVerdict.RESTORE if restored else IdentityVerdict.ADOPT,
            f"{marker.value}, and {manifests.value}",
        )
    if marker is NoMarker.UNREADABLE:
        return Identity(IdentityVerdict.WRONG, f"{marker.value}, and {manifests.value}")
    if not memory.has_archived:
        return Identity(IdentityVerdict.ADOPT, "nothing is archived yet, as far as the ledger knows")
    if memory.others and not memory.expected and manifests is Manifests.NONE:
        return Identity(IdentityVerdict.NEW, IdentityVerdict.NEW.value)
    return Identity(
        IdentityVerdict.WRONG, f"{marker.value}, and {manifests.value}, while assets are archived"
    )


def _marked(memory: Memory, marker: Marker, manifests: Manifests, workspace: str | None) -> Identity:
    if memory.id is not None:
        if memory.id == marker.id:
            return Identity(IdentityVerdict.KNOWN)
        return Identity(
            IdentityVerdict.WRONG,
            f"its marker names {marker.id}, the ledger remembers {memory.id}: another disk or bucket",
        )
    if manifests in (Manifests.SOME, Manifests.MOST):
        return Identity(IdentityVerdict.ADOPT, f"{manifests.value}")
    if memory.intended_id == marker.id:
        is_new = memory.has_archived and manifests is Manifests.NONE
        verdict = IdentityVerdict.NEW if is_new else IdentityVerdict.ADOPT
        return Identity(verdict, "its marker was written for this ledger, and could not be read back then")
    if is_of_another(marker, workspace):
        return Identity(
            IdentityVerdict.WRONG, "its marker belongs to another 100ms workspace, or to an older access key"
        )
    if not memory.has_archived:
        return Identity(IdentityVerdict.ADOPT, "the ledger is empty, and the marker is of this workspace")
    return Identity(IdentityVerdict.WRONG, f"its marker is unknown here, and {manifests.value}")


def is_of_another(marker: Marker, workspace: str | None) -> bool:
    """Return whether the marker names other workspaces than ours. An unknown one contradicts nothing."""
    return workspace is not None and bool(marker.workspaces) and workspace not in marker.workspaces
