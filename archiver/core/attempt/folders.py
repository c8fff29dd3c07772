"""In which folder of a destination an asset's objects are written. Nothing that a manifest lists is overwritten by
something else: other content goes to a new folder, and the manifest switches to it last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archiver.core.records import keys
from archiver.core.records.manifest import Manifest
from storage_backends.base import ObjectKey, object_key

_LEDGER_RECORDS = "3"
"""Objects recorded by a version that checked less are not reused; they are copied again."""


@dataclass(frozen=True, slots=True)
class Folder:
    """`manifests`: by store, those that list objects of this folder. `base`: the asset's first folder."""

    path: ObjectKey
    base: ObjectKey
    manifests: Mapping[str, Manifest]

    def version_in_ledger(self, version: str) -> str:
        """What the ledger records objects of this folder under."""
        folder = "" if self.path == self.base else f"{self.path.removeprefix(self.base)}:"
        return f"{_LEDGER_RECORDS}:{folder}{version}"


def choose_folder(base: ObjectKey, present: Mapping[str, Manifest]) -> Folder:
    """`base`, or the folder that the manifests `present` at the destinations name; a new one when they differ."""
    folders = {manifest.folder for manifest in present.values()}
    if len(folders) == 1:
        return Folder(object_key(folders.pop()), base, present)
    return _unused(base, folders)


def next_folder(folder: Folder, present: Mapping[str, Manifest], tried: Sequence[Folder] = ()) -> Folder:
    """One that no manifest names, nor is among `tried`. The same at the next attempt, so that it is resumed."""
    used = {manifest.folder for manifest in present.values()}
    return _unused(folder.base, used | {each.path for each in tried})


def _unused(base: ObjectKey, used: set[str]) -> Folder:
    """`base`, or its first version folder that is not `used`."""
    number, path = 1, base
    while path in used:
        number += 1
        path = keys.version_folder(base, number)
    return Folder(path, base, {})
