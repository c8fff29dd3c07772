"""Decode the first and the last picture, or sound, of a restored file with ffmpeg, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from archiver.core.upkeep.drill_report import DOES_NOT_PLAY

MEDIA = frozenset(
    {".m3u8", ".mp4", ".m4a", ".mov", ".ts", ".webm", ".mkv", ".ogg", ".wav", ".aac", ".mp3", ".png", ".jpg"}
)
SECONDS = 300.0
"""The longest that one ffmpeg runs. A tail of ten seconds takes one."""
_TAIL_SECONDS = 10
_STILLS = frozenset({".png", ".jpg"})
_INSIDE = ("-protocol_whitelist", "file,crypto,data", "-allowed_extensions", "ALL")


class Played(StrEnum):
    """What is known of a file."""

    YES = "decoded"
    NO = DOES_NOT_PLAY
    NOT_MEDIA = "not media"
    NO_FFMPEG = "not decoded: there is no ffmpeg on PATH"
    TOO_SLOW = "not decoded: ffmpeg took too long"


class Decode(Protocol):
    """Decode a file. The reason is empty unless it does not play."""

    def __call__(self, path: Path, /) -> tuple[Played, str]: ...


class Decoder:
    """`program`: ffmpeg; None: what PATH has."""

    def __init__(self, program: str | None = None, seconds: float = SECONDS) -> None:
        self._program = program or shutil.which("ffmpeg")
        self._seconds = seconds

    def __call__(self, path: Path) -> tuple[Played, str]:
        """Decode both ends of `path`, a playlist with the files beside it. Nothing outside of this machine is read. A
        file without a picture is judged by its sound. A time limit is not held against the file."""
        extension = path.suffix.lower()
        if extension not in MEDIA:
            return Played.NOT_MEDIA, ""
        if self._program is None:
            return Played.NO_FFMPEG, ""
        try:
            frames, reason = self._frames(path, [], 1)
            if frames and extension not in _STILLS:
                frames, reason = self._frames(path, ["-sseof", f"-{_TAIL_SECONDS}"], None)
                if not frames:  # a container without a duration, which cannot be sought in
                    frames, reason = self._frames(path, [], None)
        except subprocess.TimeoutExpired:
            return Played.TOO_SLOW, ""
        return (
            (Played.YES, "")
            if frames
            else (Played.NO, reason or "ffmpeg finds no picture and no sound in it")
        )

    def _frames(self, path: Path, before: Sequence[str], most: int | None) -> tuple[int, str]:
        """Return how many frames were decoded, and ffmpeg's last complaint."""
        reason = ""
        for stream in ("0:v:0", "0:a:0"):
            command = [
                str(self._program),
                "-nostdin",
                "-hide_banner",
                "-v",
                "error",
                "-threads",
                "1",
                *before,
            ]
            command += [
                *(_INSIDE if path.suffix.lower() == ".m3u8" else _INSIDE[:2]),
                "-i",
                f"file:{path.resolve()}",
            ]
            command += ["-map", stream, *(["-frames", str(most)] if most else []), "-f", "framecrc", "-"]
            environment = {
                name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
            }
            done = subprocess.run(  # ffmpeg, with a file of our own naming
                command, capture_output=True, timeout=self._seconds, check=False, env=environment
            )
            lines = done.stdout.decode("utf-8", "replace").splitlines()
            frames = sum(not line.startswith("#") for line in lines)
            if frames:
                return frames, ""
            complaints = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = reason or (complaints[-1][:200] if complaints else "")
        return 0, reason
