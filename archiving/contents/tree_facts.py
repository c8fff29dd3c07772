"""What a tree turned out to be, in numbers, and how that agrees with what the API says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from archiving.contents.base import Notes
from archiving.contents.playlist import Playlist

MAX_REMARKS = 200  # of one tree


@dataclass(frozen=True, slots=True)
class Expected:
    """What the API says of the tree; None where it says nothing. A difference is noted, not refused."""

    layers: int | None = None
    duration_seconds: float | None = None


@dataclass(slots=True)
class TreeFacts:
    playlists: int = 0
    segments: int = 0
    gaps: int = 0
    duration_seconds: float = 0.0  # of the longest playlist
    variants: set[str] = field(default_factory=set)  # by whatever identifies them
    remarks: list[str] = field(default_factory=list)

    def add(self, path: str, playlist: Playlist) -> None:
        """Count a playlist whose references were read to their end."""
        self.playlists += 1
        self.segments += playlist.segments
        self.gaps += playlist.gaps
        self.duration_seconds = max(self.duration_seconds, playlist.duration_seconds)
        left = MAX_REMARKS - len(self.remarks)
        self.remarks += [f"{path}: {remark}" for remark in playlist.remarks[:left]]

    def tell(self, notes: Notes, files: int, expected: Expected) -> None:
        layers = len(self.variants) or min(self.playlists, 1)
        notes.warnings += self.remarks
        notes.facts.update(
            layers=layers,
            playlists=self.playlists,
            segments=self.segments,
            files=files,
            duration_seconds=round(self.duration_seconds, 3),
        )
        if self.gaps:
            notes.facts["gaps"] = self.gaps
        if expected.layers is not None and expected.layers != layers:
            notes.warnings.append(f"{layers} layers were found, the API says {expected.layers}")
        said = expected.duration_seconds
        # recorders round, and the API counts the whole session: only a gap that someone would miss is worth a word
        if said is not None and abs(said - self.duration_seconds) > max(10.0, said * 0.05):
            notes.warnings.append(
                f"the segments last {self.duration_seconds:.0f} s, the API says {said:.0f} s"
            )
