"""The playlists of `archiver url` play in hls.js, in a browser, from a private bucket.

Runs where Chromium is installed (`apt-get install chromium`) and HLS_JS names the `hls.min.js` of the npm package
`hls.js` (`npm install hls.js`); `make test` needs neither. The browser does not ask for CORS here: for a page of yours
the bucket needs a rule for it.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.servers import S3Server
from tests.simulator.process import Simulator
from tests.walkthrough.commands.test_restore import NO_ACCOUNT
from tests.walkthrough.user import User

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HLS_JS = Path(os.environ.get("HLS_JS") or "hls.min.js")
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed"),
    pytest.mark.skipif(
        not HLS_JS.is_file(), reason="HLS_JS does not name hls.min.js of the npm package hls.js"
    ),
]

PAGE = """<!doctype html><video id=v muted></video><script src=/hls.min.js></script><script>
const video = document.getElementById("v"), hls = new Hls(), said = {version: Hls.version, fragments: 0};
const tell = (ended) => fetch("/said", {method: "POST", body: JSON.stringify({
  ...said, ended, duration: video.duration, at: video.currentTime, width: video.videoWidth,
  frames: video.getVideoPlaybackQuality().totalVideoFrames, levels: hls.levels.length})});
hls.on(Hls.Events.FRAG_BUFFERED, () => said.fragments++);
hls.on(Hls.Events.ERROR, (_, error) => error.fatal && tell(error.details + " " + (error.response || {}).code));
video.onended = () => tell("played");
hls.loadSource("/%s");
hls.attachMedia(video);
hls.on(Hls.Events.MANIFEST_PARSED, () => { video.playbackRate = 4; video.play(); });
</script>"""


class _Pages(SimpleHTTPRequestHandler):
    said: queue.Queue[dict[str, Any]]
    page: str

    def do_GET(self) -> None:
        data = {"/": self.page.encode(), "/hls.min.js": HLS_JS.read_bytes()}.get(self.path)
        if data is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "text/javascript")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def pages(folder: Path, master: str) -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    said: queue.Queue[dict[str, Any]] = queue.Queue()
    kind = type("Pages", (_Pages,), {"said": said, "page": PAGE % master})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", said
    finally:
        server.shutdown()
        server.server_close()


def played(folder: Path, master: Path, profile: Path) -> dict[str, Any]:
    """What a browser says of the end of the playlist."""
    assert BROWSER is not None
    with pages(folder, str(master.relative_to(folder))) as (url, said):
        options = (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-web-security", "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}", "--remote-debugging-port=0",
        )  # fmt: skip
        browser = subprocess.Popen(
            [BROWSER, *options, url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return said.get(timeout=60)
        finally:
            os.killpg(browser.pid, 9)
            browser.wait()


@pytest.mark.parametrize("kind", ["vod-ts", "vod-fmp4"])
def test_a_tree_in_a_private_bucket_plays_in_hls_js(
    kind: str, user: User, empty_simulator: Simulator, rclone_server: S3Server, tmp_path: Path
) -> None:
    bucket = rclone_server.new_bucket()
    user.environment |= {
        **rclone_server.env,
        "ARCHIVER_DESTINATIONS": rclone_server.url(bucket, "x"),
    }
    vod = empty_simulator.add_asset(kind)["id"]
    user.runs_once()
    tree = user.types("url", vod, "--into", "play", **NO_ACCOUNT)
    master = user.folder / tree.stdout.strip()

    end = played(user.folder / "play", master, tmp_path / "profile")
    for path in (user.folder / "play").rglob("*.m3u8"):  # as after the URLs have ended
        path.write_text(path.read_text().replace("X-Amz-Signature=", "X-Amz-Signature=0"))
    refused = played(user.folder / "play", master, tmp_path / "profile2")

    assert end["ended"] == "played", end
    assert end["duration"] == pytest.approx(6.1, abs=0.3)
    assert end["at"] == pytest.approx(end["duration"], abs=0.3)
    assert end["fragments"] >= 2
    assert end["levels"] >= 2
    assert end["width"] > 0
    assert "fragLoadError 403" in refused["ended"]
