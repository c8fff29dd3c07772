"""The folder of a destination that an asset is written to.

Other content than a manifest lists goes to a new folder, and the manifest switches to it last: nothing that a manifest
lists is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archiver.core.records import keys
from archiver.core.records.manifest import Manifest
from storage_backends.base import ObjectKey, object_key

_LEDGER_RECORDS = "3"
"""Objects recorded by a version of the archiver that checked less are copied again."""


@dataclass(frozen=True, slots=True)
class Folder:
    """`base`: the asset's first folder. `manifests`: by store, those that list objects of this folder."""

    path: ObjectKey
    base: ObjectKey
    manifests: Mapping[str, Manifest]

    def version_in_ledger(self, version: str) -> str:
        """The key under which the ledger records objects of this folder."""
        folder = "" if self.path == self.base else f"{self.path.removeprefix(self.base)}:"
        return f"{_LEDGER_RECORDS}:{folder}{version}"


def choose_folder(base: ObjectKey, present: Mapping[str, Manifest]) -> Folder:
    """Return the folder that the manifests at the destinations name; a new one if they differ, `base` without any."""
    folders = {manifest.folder for manifest in present.values()}
    if len(folders) == 1:
        return Folder(object_key(folders.pop()), base, present)
    return _unused(base, folders)


def next_folder(folder: Folder, present: Mapping[str, Manifest], tried: Sequence[Folder] = ()) -> Folder:
    """Return a folder that no manifest names and that was not `tried`: the same at every attempt, so that a copy is
    resumed."""
    used = {manifest.folder for manifest in present.values()}
    return _unused(folder.base, used | {each.path for each in tried})


def _unused(base: ObjectKey, used: set[str]) -> Folder:
    """`base`, or its first version folder that is not `used`."""
    number, path = 1, base
    while path in used:
        number += 1
        path = keys.version_folder(base, number)
    return Folder(path, base, {})
