"""Check that a file is whole by its container, or its JSON, while it is copied.

May import what archiver.core.contents may, and its root.
"""

from __future__ import annotations

from collections.abc import Callable

from archiver.core.contents import texts
from archiver.core.contents.containers.ebml import Ebml
from archiver.core.contents.containers.json_text import JsonText
from archiver.core.contents.containers.mp4 import Mp4
from archiver.core.contents.containers.ogg import Ogg
from archiver.core.contents.containers.walk import Walk
from archiver.core.contents.containers.wav import Wav, is_streamed
from archiver.core.contents.sniff import Kind
from archiver.transfer.base import Structure

_STRUCTURES: dict[Kind, Callable[[str], Structure]] = {
    Kind.MP4: lambda name: Walk(name, Mp4),
    Kind.WEBM: lambda name: Walk(name, Ebml),
    Kind.MATROSKA: lambda name: Walk(name, Ebml),
    Kind.OGG: lambda name: Walk(name, Ogg),
    Kind.WAV: lambda name: Walk(name, Wav),
    Kind.JSON: JsonText,
}


def has_structure(kind: Kind | None, start: bytes) -> bool:
    """Tell whether the bytes of a file of this kind that begins with `start` show if it is cut."""
    if kind is Kind.JSON:
        return texts.begins_as_one_value(start)
    return kind in _STRUCTURES and not (kind is Kind.WAV and is_streamed(start))


def structure_of(kind: Kind | None, name: str) -> Structure | None:
    """Return the check for one copy of the file `name`; None for kinds without a structure."""
    return _STRUCTURES[kind](name) if kind in _STRUCTURES else None
