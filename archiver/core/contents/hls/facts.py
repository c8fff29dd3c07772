"""Count what a tree holds, and compare it with the API and between its streams."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum

from archiver.core.contents.base import Doubt, Notes
from archiver.core.contents.hls.playlist import Playlist, is_unfinished

_ENDLIST = b"#EXT-X-ENDLIST"

MAX_REMARKS = 200  # of one tree

DURATION_TOLERANCE = 0.05
MIN_DURATION_GAP_SECONDS = 3.0
"""Shorter gaps do not count: the API and a playlist may each round to a second, and a recorder drops or adds part of a
segment of 2 s at the end."""


class Stream(Enum):
    """Role of a media playlist in the tree; one may have several."""

    VARIANT = "variant"  # or the only playlist
    RENDITION = "audio or video rendition"
    SUBTITLES = "subtitles"
    TRICK_PLAY = "I-frame or image list"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the API claims about the tree; None where it does not."""

    layers: int | None = None
    duration_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    path: str
    segments: int  # without gaps
    gaps: int
    duration_seconds: float
    is_empty: bool
    unfinished: bool
    error: str | None
    streams: Collection[Stream]  # grows while the tree is walked

    def is_one_of(self, *streams: Stream) -> bool:
        return any(stream in self.streams for stream in streams)


@dataclass(slots=True)
class TreeFacts:
    """Counts of one tree, and remarks on its playlists."""

    variants: set[str] = field(default_factory=set)  # identities
    remarks: list[str] = field(default_factory=list)
    _seen: list[_Seen] = field(default_factory=list)

    def add(self, path: str, playlist: Playlist, streams: Collection[Stream] = ()) -> None:
        """Count a playlist whose references were all read. `streams` may still grow until `summarize`; when empty, the
        playlist is not judged for being empty."""
        self._seen.append(
            _Seen(
                path,
                playlist.segments - playlist.gaps,
                playlist.gaps,
                playlist.duration_seconds,
                playlist.is_empty,
                is_unfinished(playlist.data) or (playlist.has_media and _ENDLIST not in playlist.data),
                playlist.error,
                streams,
            )
        )
        left = MAX_REMARKS - len(self.remarks)
        self.remarks += [f"{path}: {remark}" for remark in playlist.remarks[:left]]

    def summarize(self, notes: Notes, files: int, expected: Expected) -> None:
        """Add the facts, with warnings and doubts about them, to `notes`."""
        layers = len(self.variants) or min(len(self._seen), 1)
        seconds = self._duration_seconds()
        notes.facts.update(
            layers=layers,
            playlists=len(self._seen),
            segments=sum(seen.segments + seen.gaps for seen in self._seen),
            files=files,
            duration_seconds=round(seconds, 3),
        )
        if gaps := sum(seen.gaps for seen in self._seen):
            notes.facts["gaps"] = gaps
        notes.warnings += self.remarks
        notes.warnings += [
            f"{seen.path}, an {Stream.TRICK_PLAY.value}, names no segment"
            for seen in self._seen
            if seen.is_one_of(Stream.TRICK_PLAY) and not seen.segments
        ]
        for seen in self._seen:
            notes.doubts += self._doubts_about(seen)
        self._compare_layers(notes, layers, expected.layers)
        self._compare_duration(notes, seconds, expected.duration_seconds)

    def _duration_seconds(self) -> float:
        """Return the duration of the longest variant; without variants, of the longest playlist."""
        variants = [seen for seen in self._seen if seen.is_one_of(Stream.VARIANT)]
        return max((seen.duration_seconds for seen in variants or self._seen), default=0.0)

    def _doubts_about(self, seen: _Seen) -> Iterator[Doubt]:
        if seen.error is not None:
            yield Doubt(f"its packager reports an error: {seen.error}", seen.path)
        if seen.unfinished:
            yield Doubt("has no EXT-X-ENDLIST, so the recording may go on", seen.path, unready=True)
        if not seen.is_one_of(Stream.VARIANT, Stream.RENDITION):
            return
        if seen.is_empty:
            what = "all its segments are gaps" if seen.gaps else "names neither a segment nor a variant"
            yield Doubt(what, seen.path)
        elif seen.segments:
            longest = max(
                each.duration_seconds
                for each in self._seen
                if each.is_one_of(Stream.VARIANT, Stream.RENDITION)
            )
            # without a single EXTINF the duration is not known
            if seen.duration_seconds and _differ(seen.duration_seconds, longest):
                yield Doubt(f"lasts {seen.duration_seconds:.0f} s, another stream {longest:.0f} s", seen.path)

    @staticmethod
    def _compare_layers(notes: Notes, layers: int, reported: int | None) -> None:
        if reported and layers != reported:
            text = f"{layers} layers were found, the API says {reported}"
            if layers < reported:
                notes.doubts.append(Doubt(text))
            else:
                notes.warnings.append(text)

    def _compare_duration(self, notes: Notes, seconds: float, reported: float | None) -> None:
        if not reported or not self._seen:
            return
        if not seconds:
            notes.warnings.append(
                f"the playlists do not say how long they last, the API says {reported:.0f} s"
            )
        elif _differ(seconds, reported):
            notes.doubts.append(Doubt(f"the segments last {seconds:.0f} s, the API says {reported:.0f} s"))


def _differ(seconds: float, right: float) -> bool:
    return abs(right - seconds) > max(MIN_DURATION_GAP_SECONDS, right * DURATION_TOLERANCE)
