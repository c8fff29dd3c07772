"""The sample recordings are real: ffmpeg decodes every frame over HTTP without a word."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.simulator.process import Simulator

SECONDS = 6
FRAMES = SECONDS * 15


def _decode(url: str, *chosen: str) -> int:
    """The number of frames; fails on any error or warning of the decoder."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "warning",
        "-xerror",
        "-i",
        url,
        *chosen,
        "-f",
        "framemd5",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return sum(not line.startswith("#") for line in done.stdout.splitlines())


@pytest.mark.parametrize("kind", ["composite", "composite-legacy", "stream", "track-video"])
def test_a_picture_plays(simulator: Simulator, kind: str) -> None:
    url = simulator.signed_url(simulator.asset(kind)["id"])

    assert _decode(url, "-map", "0:v:0") == FRAMES


@pytest.mark.parametrize("kind", ["composite", "composite-legacy", "stream", "track-audio"])
def test_a_tone_plays(simulator: Simulator, kind: str) -> None:
    url = simulator.signed_url(simulator.asset(kind)["id"])

    assert _decode(url, "-map", "0:a:0") > SECONDS * 40


@pytest.mark.parametrize("kind", ["vod-ts", "vod-fmp4"])
@pytest.mark.parametrize("layer", [0, 1])
def test_every_layer_of_a_vod_plays(scratch: Simulator, kind: str, layer: int) -> None:
    # ffmpeg carries no query over, so this copy has children that need none.
    url = scratch.signed_url(scratch.add_asset(kind, delivery="cdn-relative")["id"])

    assert _decode(url, "-map", f"0:v:{layer}") == FRAMES


def test_thumbnails_are_pictures(simulator: Simulator) -> None:
    thumbnails = [
        thumbnail["url"]
        for delivery in simulator.webhooks()
        for thumbnail in delivery["event"]["data"].get("recording_thumbnails", ())
    ]

    assert len(thumbnails) >= 4
    assert {_decode(url) for url in thumbnails[:4]} == {1}


def test_the_samples_are_small() -> None:
    media = Path(__file__).parents[2] / "simulator" / "media"

    assert sum(path.stat().st_size for path in media.rglob("*") if path.is_file()) < 1_500_000
