"""Limits on one tree. Real ones stay far below: 12 h in four layers are 86,400 references."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HlsLimits:
    """Whatever exceeds a limit is not followed and becomes a doubt; the rest of the tree is copied."""

    depth: int = 4
    playlists: int = 500
    references: int = 1_000_000
    optional_files: int = 20_000  # remembered until the end of the walk
    playlist_bytes: int = 64 * _MIB
    all_playlists_bytes: int = 256 * _MIB  # held in memory until the media is whole
    polls: int = 3  # of playlists without EXT-X-ENDLIST, in the whole tree
    poll_every: timedelta = timedelta(seconds=4)  # two segments of 2 s
    busy: int = 10  # consecutive playlists without a response, after which this walk requests no more
    doubts: int = 1000  # recorded one by one
