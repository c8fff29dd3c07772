"""`archiver url`."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.servers import S3Server
from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.commands.test_restore import NO_ACCOUNT, frames
from tests.walkthrough.stored import manifests
from tests.walkthrough.user import User


def status_of(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_an_asset_in_a_private_bucket_plays_by_signed_urls(
    user: User, empty_simulator: Simulator, rclone_server: S3Server
) -> None:
    """rclone checks signatures."""
    bucket = rclone_server.new_bucket()
    user.environment |= {
        **rclone_server.env,
        "ARCHIVER_DESTINATIONS": f"{rclone_server.url(bucket, 'x')},./archive",
        "ARCHIVER_LOG_LEVEL": "DEBUG",
    }
    vod, composite = (empty_simulator.add_asset(kind)["id"] for kind in ("vod-fmp4", "composite"))
    user.runs_once()
    stored = manifests(FileSideDoor(user.folder / "archive"))
    before = sorted(path for path in (user.folder / "archive").rglob("*"))

    one = user.types("url", composite, "--minutes", "5", **NO_ACCOUNT)
    tree = user.types("url", vod, "--into", "play", **NO_ACCOUNT)
    file = user.types("url", composite, "--from", "./archive", **NO_ACCOUNT)

    assert (one.exit_code, tree.exit_code, file.exit_code) == (0, 0, 0), one.stderr + tree.stderr
    (url,) = one.stdout.splitlines()
    assert (status_of(url), status_of(url[:-4] + "0000")) == (200, 403)
    assert status_of(url.partition("?")[0]) in (400, 403)
    assert frames(url) == 90
    assert "X-Amz-Expires=300" in url
    master = user.folder / tree.stdout.strip()
    assert frames(master, "-protocol_whitelist", "file,http,tcp", "-allowed_extensions", "ALL") == 90
    written = [path for path in (user.folder / "play").rglob("*") if path.is_file()]
    playlists = {each["path"] for each in stored[vod]["objects"] if each["path"].endswith(".m3u8")}
    assert {str(path.relative_to(user.folder / "play")) for path in written} == playlists
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert Path(file.stdout.strip()).read_bytes() == user.media_of(stored[composite]).read_bytes()
    assert sorted(path for path in (user.folder / "archive").rglob("*")) == before
    assert "X-Amz-Signature" not in one.stderr + tree.stderr + tree.stdout


def test_a_cut_tree_gives_no_playlist_and_an_unknown_asset_no_url(
    user: User, empty_simulator: Simulator
) -> None:
    vod = empty_simulator.add_asset("vod-ts")["id"]
    user.runs_once()
    manifest = manifests(FileSideDoor(user.folder / "archive"))[vod]
    (user.folder / "archive" / manifest["folder"] / manifest["objects"][2]["path"]).unlink()

    cut = user.types("url", vod)
    unknown = user.types("url", "6400c0d3e1b2a3c4d5e6f708")
    long = user.types("url", vod, "--minutes", "20000", "--from", "s3://bucket?region=us-east-1")

    assert (cut.exit_code, unknown.exit_code, long.exit_code) == (1, 1, 2)
    assert "missing" in cut.text
    assert "no destination has a manifest of it" in unknown.text
    assert "10080 minutes at most" in " ".join(long.text.replace("│", " ").split())
