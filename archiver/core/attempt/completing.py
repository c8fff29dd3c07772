"""Add to an archived asset what was busy when it was archived (a thumbnail), without touching the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from archiver.core.attempt.copying import TRIED_AGAIN, Copied
from archiver.core.contents.base import Contents
from archiver.core.records.keys import OUR_FILES
from archiver.core.records.manifest import Manifest, ManifestObject, without_queries


@runtime_checkable
class CompletesLater(Protocol):
    """Contents with optional items that can be had apart from the rest."""

    def only_missing(self, stored: Collection[str]) -> Contents:
        """The optional items whose path is not in `stored`."""
        ...


@dataclass(frozen=True, slots=True)
class Addition:
    """What was had by now. `warnings`: those of this look."""

    objects: tuple[ManifestObject, ...]
    warnings: tuple[str, ...]

    def to(self, manifest: Manifest, fence: int) -> Manifest:
        """`manifest` with it. Its token does not sink."""
        objects = (*manifest.objects, *self.objects)
        kept = [warning for warning in manifest.warnings if TRIED_AGAIN not in warning]
        return manifest.model_copy(
            update={
                "objects": objects,
                "total_size": sum(item.size for item in objects),
                "warnings": tuple(dict.fromkeys([*kept, *self.warnings])),
                "fence": max(manifest.rank, fence),
            }
        )


def lacks(manifest: Manifest) -> bool:
    """Return whether something optional was busy, so that it is worth asking for again."""
    return any(TRIED_AGAIN in warning for warning in manifest.warnings)


def in_one_place(manifests: Mapping[str, Manifest]) -> Manifest | None:
    """One of the manifests when all destinations have the same paths in the same folder; else None."""
    first, *others = manifests.values()
    for other in others:
        if other.folder != first.folder or _paths(other) != _paths(first):
            return None
    return first


def complete(
    manifest: Manifest, contents: Contents, copy: Callable[[Contents, Manifest], Copied]
) -> Addition | None:
    """Copy what `manifest` lacks; None when there is nothing new. Raises what `copy` raises."""
    if not isinstance(contents, CompletesLater):
        return None
    only = contents.only_missing({item.path for item in manifest.objects})
    copied = copy(only, manifest)
    if not copied.objects or copied.failed:
        return None
    return Addition(copied.objects, tuple(without_queries([*only.notes.warnings, *copied.warnings])))


def _paths(manifest: Manifest) -> set[str]:
    return {item.path for item in manifest.objects} - OUR_FILES
