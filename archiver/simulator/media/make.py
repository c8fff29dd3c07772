"""Make the sample recordings of this folder: `python -m archiver.simulator.media.make`. Needs the `imageio-ffmpeg`
wheel.

Its output is committed, so that the simulator needs no ffmpeg. Every file holds six seconds of a moving test
picture and a tone, each with another picture size and pitch, so that no two recordings are alike.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg

HERE = Path(__file__).parent
SECONDS = 6
SEGMENT_SECONDS = 2  # what 100ms documents for its live playlists
FRAMES_PER_SECOND = 15
LAYERS = ((426, 240), (256, 144))

X264 = (
    "-c:v",
    "libx264",
    "-preset",
    "veryslow",
    "-crf",
    "36",
    "-pix_fmt",
    "yuv420p",
    "-g",
    str(FRAMES_PER_SECOND * 2),
)
AAC = ("-c:a", "aac", "-b:a", "24k", "-ac", "1")
OPUS = ("-c:a", "libopus", "-b:a", "24k", "-ac", "1")
REPEATABLE = ("-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")

CAPTIONS = ("The recording starts.", "Half of it is over.", "This is the end – goodbye.")


def main() -> None:
    for folder in ("vod-ts", "vod-fmp4"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    _video("composite.mp4", 426, 240, 440)
    _video("composite-legacy.mp4", 320, 180, 330)
    for number, (width, height) in enumerate(((426, 240), (320, 180), (256, 144)), start=1):
        _video(f"composite-layer-{number}.mp4", width, height, 440 + number)
    _video("stream.mp4", 256, 144, 550)
    _ffmpeg(
        *_picture(256, 144), "-c:v", "libvpx-vp9", "-b:v", "0", "-crf", "50", *REPEATABLE, "track-video.webm"
    )
    _ffmpeg(*_tone(660), *OPUS, *REPEATABLE, "track-audio.webm")
    for number, second in enumerate((1, 4)):
        _ffmpeg(
            *_picture(256, 144), "-ss", str(second), "-frames:v", "1", *REPEATABLE, f"thumbnail-{number}.png"
        )
    _tree("vod-ts", "ts", subtitles=False)
    _tree("vod-fmp4", "fmp4", subtitles=True)


def _video(name: str, width: int, height: int, hertz: int) -> None:
    _ffmpeg(
        *_picture(width, height), *_tone(hertz), *X264, *AAC, *REPEATABLE, "-movflags", "+faststart", name
    )


def _tree(folder: str, form: str, *, subtitles: bool) -> None:
    for number, (width, height) in enumerate(LAYERS):
        stream = f"{folder}/stream_{number}"
        (HERE / stream).mkdir(parents=True)
        segments = (
            ("-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", "init.mp4", "-hls_segment_filename")
            if form == "fmp4"
            else ("-hls_segment_filename",)
        )
        _ffmpeg(
            *_picture(width, height),
            *_tone(440 + number),
            *(*X264, *AAC, *REPEATABLE),
            *("-f", "hls", "-hls_time", str(SEGMENT_SECONDS), "-hls_playlist_type", "vod"),
            *(*segments, f"{stream}/segment_%05d.{'m4s' if form == 'fmp4' else 'ts'}"),
            f"{stream}/stream.m3u8",
        )
    if subtitles:
        _subtitles(HERE / folder / "subtitles")
    _master(HERE / folder, subtitles=subtitles)


def _master(folder: Path, *, subtitles: bool) -> None:
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    if subtitles:
        lines.append(
            '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="subs",NAME="English, all speakers",DEFAULT=YES,'
            'AUTOSELECT=YES,FORCED=NO,LANGUAGE="en",URI="subtitles/subtitles.m3u8"'
        )
    for number, (width, height) in enumerate(LAYERS):
        media = [path for path in (folder / f"stream_{number}").iterdir() if path.suffix != ".m3u8"]
        bandwidth = max(path.stat().st_size for path in media) * 8 // SEGMENT_SECONDS
        group = ',SUBTITLES="subs"' if subtitles else ""
        lines.append(
            f"#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},RESOLUTION={width}x{height},"
            f'FRAME-RATE={FRAMES_PER_SECOND}.000,CODECS="avc1.640015,mp4a.40.2"{group}'
        )
        lines.append(f"stream_{number}/stream.m3u8")
    (folder / "master.m3u8").write_text("\n".join(lines) + "\n")


def _subtitles(folder: Path) -> None:
    folder.mkdir()
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{SEGMENT_SECONDS}",
        "#EXT-X-MEDIA-SEQUENCE:0",
    ]
    lines.append("#EXT-X-PLAYLIST-TYPE:VOD")
    for number, caption in enumerate(CAPTIONS):
        start = number * SEGMENT_SECONDS
        text = (
            f"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n"
            f"00:00:{start:02}.200 --> 00:00:{start + 1:02}.800\n{caption}\n"
        )
        (folder / f"segment_{number:05}.vtt").write_text(text, encoding="utf-8")
        lines += [f"#EXTINF:{SEGMENT_SECONDS}.000,", f"segment_{number:05}.vtt"]
    (folder / "subtitles.m3u8").write_text("\n".join([*lines, "#EXT-X-ENDLIST"]) + "\n")


def _picture(width: int, height: int) -> tuple[str, ...]:
    source = f"testsrc2=size={width}x{height}:rate={FRAMES_PER_SECOND}:duration={SECONDS}"
    return ("-f", "lavfi", "-i", source)


def _tone(hertz: int) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"sine=frequency={hertz}:sample_rate=48000:duration={SECONDS}")


def _ffmpeg(*arguments: str) -> None:
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *arguments)
    subprocess.run(command, cwd=HERE, check=True)


if __name__ == "__main__":
    main()
