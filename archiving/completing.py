"""Adding to an archived asset what was busy when it was archived (a thumbnail), without touching the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, runtime_checkable

from archiving.contents.base import Contents
from archiving.copying import TRIED_AGAIN, Copied
from archiving.manifest import Manifest, without_queries


@runtime_checkable
class CompletesLater(Protocol):
    """Contents with optional items that can be had apart from the rest."""

    def only_missing(self, stored: Collection[str]) -> Contents:
        """The optional items whose path is not in `stored`."""
        ...


def lacks(manifest: Manifest) -> bool:
    """Whether something optional was busy, so that it is worth asking for again."""
    return any(TRIED_AGAIN in warning for warning in manifest.warnings)


def in_one_place(manifests: Mapping[str, Manifest]) -> Manifest | None:
    """The manifest that all destinations have, apart from times; None when they have the asset in different folders."""
    first, *others = manifests.values()
    paths = {item.path for item in first.objects}
    for other in others:
        if other.folder != first.folder or {item.path for item in other.objects} != paths:
            return None
    return first


def complete(
    manifest: Manifest, contents: Contents, copy: Callable[[Contents, Manifest], Copied]
) -> Manifest | None:
    """Copy what `manifest` lacks, and return the manifest with it; None when there is nothing new. Raises what `copy`
    raises."""
    if not isinstance(contents, CompletesLater):
        return None
    only = contents.only_missing({item.path for item in manifest.objects})
    copied = copy(only, manifest)
    if not copied.objects or copied.failed:
        return None
    objects = (*manifest.objects, *copied.objects)
    kept = [warning for warning in manifest.warnings if TRIED_AGAIN not in warning]
    warnings = dict.fromkeys([*kept, *without_queries([*only.notes.warnings, *copied.warnings])])
    return manifest.model_copy(
        update={
            "objects": objects,
            "total_size": sum(item.size for item in objects),
            "warnings": tuple(warnings),
        }
    )
