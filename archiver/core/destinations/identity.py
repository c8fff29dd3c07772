"""Is this the destination that the ledger knows? Told by a marker object at the destination, of which the ledger
remembers the id, and by the manifests beside it. Pure.

An unmounted disk leaves an empty directory under the same name, and a wrong setting names somebody else's bucket: both
answer every call, and everything concluded from them is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from archiver.core.destinations.markers import Marker, NoMarker


class Manifests(Enum):
    """What of the assets that the ledger calls archived has a manifest at the destination."""

    NONE = "it holds no manifest at all"
    FOREIGN = "it holds manifests, and none of those that the ledger knows"
    SOME = "it holds few of the manifests that the ledger knows"
    MOST = "it holds the manifests that the ledger knows"


@dataclass(frozen=True, slots=True)
class Memory:
    """What the ledger remembers. `id`: of the destination of this name; None: not known yet. `expected`: there was a
    destination of this name before anybody wrote markers, or before it could be asked. `others`: destinations of other
    names are remembered. `has_archived`: the ledger calls anything archived."""

    id: str | None = None
    expected: bool = False
    others: bool = False
    has_archived: bool = False


class Verdict(Enum):
    KNOWN = "its marker is the one that the ledger remembers"
    ADOPT = "the ledger takes it for its own from now on, with the marker that is there or a new one"
    NEW = "it was added: empty, while assets are archived elsewhere"
    RESTORE = "its marker is gone and its manifests are there: the marker is written anew"
    WRONG = "it is not the destination that the ledger knows: nothing is written, nothing is concluded"


@dataclass(frozen=True, slots=True)
class Identity:
    verdict: Verdict
    why: str = ""  # for people; empty when KNOWN


def identify(
    memory: Memory, marker: Marker | NoMarker, manifests: Manifests, workspace: str | None
) -> Identity:
    """What the destination is to this ledger. `workspace`: ours, None when it cannot be told."""
    if isinstance(marker, Marker):
        return _marked(memory, marker, manifests, workspace)
    if memory.id is not None:
        if manifests is Manifests.MOST:
            return Identity(Verdict.RESTORE, f"{marker.value}, and {manifests.value}")
        return Identity(
            Verdict.WRONG,
            f"{marker.value}, and {manifests.value}: a disk that is not mounted, another bucket, or an emptied one",
        )
    if manifests in (Manifests.SOME, Manifests.MOST):
        restored = marker is NoMarker.UNREADABLE
        return Identity(
            Verdict.RESTORE if restored else Verdict.ADOPT, f"{marker.value}, and {manifests.value}"
        )
    if marker is NoMarker.UNREADABLE:
        return Identity(Verdict.WRONG, f"{marker.value}, and {manifests.value}")
    if not memory.has_archived:
        return Identity(Verdict.ADOPT, "nothing is archived yet, as far as the ledger knows")
    if memory.others and not memory.expected and manifests is Manifests.NONE:
        return Identity(Verdict.NEW, Verdict.NEW.value)
    return Identity(Verdict.WRONG, f"{marker.value}, and {manifests.value}, while assets are archived")


def _marked(memory: Memory, marker: Marker, manifests: Manifests, workspace: str | None) -> Identity:
    if memory.id is not None:
        if memory.id == marker.id:
            return Identity(Verdict.KNOWN)
        return Identity(
            Verdict.WRONG,
            f"its marker names {marker.id}, the ledger remembers {memory.id}: another disk or bucket",
        )
    if manifests in (Manifests.SOME, Manifests.MOST):
        return Identity(Verdict.ADOPT, f"{manifests.value}")
    if is_of_another(marker, workspace):
        return Identity(
            Verdict.WRONG, "its marker belongs to another 100ms workspace, or to an older access key"
        )
    if not memory.has_archived:
        return Identity(Verdict.ADOPT, "the ledger is empty, and the marker is of this workspace")
    return Identity(Verdict.WRONG, f"its marker is unknown here, and {manifests.value}")


def is_of_another(marker: Marker, workspace: str | None) -> bool:
    """Whether the marker names workspaces, and not ours. What is not known is no contradiction."""
    return workspace is not None and bool(marker.workspaces) and workspace not in marker.workspaces
