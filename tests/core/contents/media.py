"""Small media that really plays, made once per test process with the ffmpeg that imageio-ffmpeg ships."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import imageio_ffmpeg

_PICTURE = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=15:duration=6"]
_SOUND = ["-f", "lavfi", "-i", "sine=frequency=440:duration=6"]
_SUBTITLES = '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="subs",NAME="English, all",URI="subtitles/subtitles.m3u8"'


def ffmpeg(*arguments: str, folder: str | Path | None = None) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", "1", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@cache
def tree(name: str) -> Mapping[str, bytes]:
    """A VOD of 6 s in two layers by relative path: `vod-ts`, or `vod-fmp4`, which has subtitles too."""
    kind, extension = ("mpegts", "ts") if name == "vod-ts" else ("fmp4", "m4s")
    with TemporaryDirectory() as folder:
        ffmpeg(
            *_PICTURE, *_SOUND, *["-map", "0:v", "-map", "1:a"] * 2,
            *["-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-s:v:1", "160x90", "-c:a", "aac"],
            *["-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod", "-hls_segment_type", kind],
            *["-var_stream_map", "v:0,a:0 v:1,a:1", "-master_pl_name", "master.m3u8"],
            *["-hls_segment_filename", f"stream_%v/segment_%05d.{extension}", "stream_%v/stream.m3u8"],
            folder=folder,
        )  # fmt: skip
        root = Path(folder)
        files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    if name == "vod-fmp4":
        _add_subtitles(files)
    return MappingProxyType(files)


@cache
def single(name: str) -> bytes:
    """`a.mp4`, `a.webm` or `a.png`."""
    arguments = {
        "a.mp4": [*_PICTURE, *_SOUND, "-c:v", "libx264", "-preset", "ultrafast"],
        "a.webm": [*_SOUND, "-c:a", "libopus"],
        "a.png": [*_PICTURE, "-frames:v", "1"],
    }[name]
    with TemporaryDirectory() as folder:
        ffmpeg(*arguments, name, folder=folder)
        return (Path(folder) / name).read_bytes()


def _add_subtitles(files: dict[str, bytes]) -> None:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXT-X-PLAYLIST-TYPE:VOD"]
    for number in range(3):
        lines += ["#EXTINF:2.0,", f"segment_{number:05}.vtt"]
        cue = f"WEBVTT\n\n00:00:0{2 * number}.000 --> 00:00:0{2 * number + 1}.000\ncue {number}\n"
        files[f"subtitles/segment_{number:05}.vtt"] = cue.encode()
    files["subtitles/subtitles.m3u8"] = "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()
    head, version, rest = files["master.m3u8"].decode().split("\n", 2)
    with_group = rest.replace('CODECS="', 'SUBTITLES="subs",CODECS="')
    files["master.m3u8"] = f"{head}\n{version}\n{_SUBTITLES}\n{with_group}".encode()
