"""What a tree may cost. A real one stays far below: 12 h in four layers are 86,400 references (hls.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HlsLimits:
    """What exceeds a limit is not followed, and becomes a doubt; the rest of the tree is copied."""

    depth: int = 4
    playlists: int = 500
    references: int = 1_000_000
    optional_files: int = 20_000  # remembered until the end of the walk
    playlist_bytes: int = 64 * _MIB
    all_playlists_bytes: int = 256 * _MIB  # held in memory until the media is whole
    polls: int = 3  # of playlists without ENDLIST, in the whole tree: time passes for all of them at once
    poll_every: timedelta = timedelta(seconds=4)  # two segments of 2 s
    busy: int = 10  # playlists in a row that are not answered: no other is asked for in this walk
    doubts: int = 1000  # told one by one
