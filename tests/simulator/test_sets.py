"""What the sets hold, and that what is served is what the truth says."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import google_crc32c
import httpx
import pytest

from archiver.simulator.recordings.kinds import KINDS
from archiver.simulator.recordings.sets import SETS
from tests.simulator.process import Simulator, running_simulator

PRESENT = (
    *("room-composite", "room-composite-legacy", "room-vod", "chat", "transcript", "summary", "track"),
    *("stream", "whiteboard"),
)


def _served(simulator: Simulator, client: httpx.Client, asset: dict[str, Any]) -> dict[str, bytes]:
    """Every object of the asset, fetched as an archiver must."""
    url = simulator.signed_url(asset["id"])
    body = client.get(url, follow_redirects=True)
    name = asset["main"].rpartition("/")[2]
    if asset["form"] == "file":
        return {name: body.content}
    if asset["form"] == "zip":
        with zipfile.ZipFile(io.BytesIO(body.content)) as archive:
            return {member: archive.read(member) for member in archive.namelist()}
    query = body.url.query.decode() if asset["delivery"] == "cdn-token" else ""
    paths = [entry["path"] for entry in asset["objects"]]
    return {path: client.get(urljoin(str(body.url), path) + f"?{query}").content for path in paths}


@pytest.mark.parametrize("name", ["demo", "vod"])
def test_what_is_served_is_the_truth_byte_by_byte(client: httpx.Client, name: str) -> None:
    with running_simulator(name) as simulator:
        for asset in simulator.truth():
            if asset["main"] is None:
                continue
            served = _served(simulator, client, asset)

            reported = {
                entry["path"]: (entry["size"], entry["sha256"], entry["crc32c"]) for entry in asset["objects"]
            }
            assert reported == {
                path: (len(data), hashlib.sha256(data).hexdigest(), google_crc32c.value(data))
                for path, data in served.items()
            }


def test_the_demo_has_every_type_of_the_documentation_and_more(simulator: Simulator) -> None:
    assets = [asset for asset in simulator.truth(checksums=False) if asset["kind"] in SETS["demo"]]

    assert {asset["type"] for asset in assets} == set(PRESENT)
    assert {asset["row"]["metadata"].get("output_mode") for asset in assets} >= {"txt", "srt", "json"}
    assert {asset["expected_state"] for asset in assets} == {"archived", "external", "source_failed"}
    assert [asset["status"] for asset in assets].count("failed") == 1


def test_a_live_stream_has_a_composite_for_every_layer(simulator: Simulator) -> None:
    layers = [
        asset["row"] for asset in simulator.truth(checksums=False) if asset["kind"] == "composite-layer"
    ]

    paths = sorted(row["path"] for row in layers)
    assert sorted(row["metadata"]["layer"] for row in layers) == ["1", "2", "3"]
    assert len({row["session_id"] for row in layers}) == 1
    assert [path.rpartition("/")[2][-6:] for path in paths] == ["-1.mp4", "-2.mp4", "-3.mp4"]
    assert len({path.rpartition("/")[0] for path in paths}) == 1


@pytest.mark.parametrize(
    ("kind", "method"), [("vod-zip-stored", zipfile.ZIP_STORED), ("vod-zip-deflated", zipfile.ZIP_DEFLATED)]
)
def test_zips_have_data_descriptors(
    simulator: Simulator, client: httpx.Client, kind: str, method: int
) -> None:
    body = client.get(simulator.signed_url(simulator.asset(kind)["id"])).content

    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = archive.infolist()
        assert archive.testzip() is None
    assert "master.m3u8" in [member.filename for member in members]
    assert {member.compress_type for member in members} == {method}
    assert all(member.flag_bits & 0x08 for member in members)


def test_the_chat_has_the_documented_header(simulator: Simulator, client: httpx.Client) -> None:
    body = client.get(simulator.signed_url(simulator.asset("chat")["id"])).text

    assert body.splitlines()[0] == "SenderPeerID,SenderName,SenderUserID,Roles,SentAt,Type,Message"


@pytest.mark.parametrize("name", sorted(SETS))
def test_every_set_starts_and_lists_its_assets(name: str) -> None:
    sizes = {"count": 5, "size_bytes": 1000, "layers": 2, "segments": 3, "segment_bytes": 1000}
    with running_simulator(name, **sizes) as simulator:
        listed = simulator.get("/recording-assets", limit=100).json()["data"]
        truth = simulator.truth()

    assert sorted(row["id"] for row in listed) == sorted(asset["id"] for asset in truth)
    assert len(listed) == (5 if name == "many" else len(SETS[name]))


def test_a_synthetic_tree_of_chosen_size_is_served(client: httpx.Client) -> None:
    with running_simulator("tree", layers=3, segments=7, segment_bytes=100_000) as simulator:
        (asset,) = simulator.truth()
        served = _served(simulator, client, asset)

    segments = {path: data for path, data in served.items() if path.endswith(".ts")}
    assert len(segments) == 21
    assert len(set(segments.values())) == 21
    assert all(set(data[::188]) == {0x47} for data in segments.values())
    assert {len(data) for data in segments.values()} == {100_000 - 100_000 % 188}
    assert asset["row"]["size"] == sum(map(len, served.values()))
    assert asset["row"]["duration"] == _playing_seconds(served)
    for entry in asset["objects"]:
        assert hashlib.sha256(served[entry["path"]]).hexdigest() == entry["sha256"]


def test_a_synthetic_zip_of_chosen_size_is_served(client: httpx.Client) -> None:
    with running_simulator("zip-tree", layers=2, segments=5, segment_bytes=10_000) as simulator:
        (asset,) = simulator.truth()
        served = _served(simulator, client, asset)

    reported = {entry["path"]: entry["sha256"] for entry in asset["objects"]}
    assert reported == {path: hashlib.sha256(data).hexdigest() for path, data in served.items()}
    assert asset["row"]["duration"] == _playing_seconds(served)


def _playing_seconds(served: Mapping[str, bytes]) -> float:
    """Of each of its playlists."""
    playlists = [data.decode() for path, data in served.items() if path.endswith("stream.m3u8")]
    (seconds,) = {sum(map(float, re.findall(r"#EXTINF:([\d.]+)", playlist))) for playlist in playlists}
    return seconds


def test_an_asset_can_be_added_with_any_bytes_and_any_row(scratch: Simulator, client: httpx.Client) -> None:
    asset = scratch.add_asset(
        "file",
        name="Überraschung 1.csv",
        type="chat",
        data_base64=base64.b64encode(b"any bytes").decode(),
        row={"size": 9, "brand_new": {"field": 1}},
    )

    listed = scratch.get(f"/recording-assets/{asset['id']}").json()
    assert listed["brand_new"] == {"field": 1}
    assert client.get(scratch.signed_url(asset["id"])).content == b"any bytes"
    assert scratch.content(asset["id"], "Überraschung 1.csv") == b"any bytes"


def test_any_tree_can_be_added(scratch: Simulator, client: httpx.Client) -> None:
    playlist = b"#EXTM3U\n#EXTINF:2,\na b.ts\n#EXT-X-ENDLIST\n"
    files = {"index.m3u8": playlist, "a b.ts": b"\x47" + bytes(187)}
    asset = scratch.add_asset(
        "files",
        main="index.m3u8",
        delivery="cdn-token",
        files_base64={path: base64.b64encode(data).decode() for path, data in files.items()},
    )

    url = scratch.signed_url(asset["id"])
    child = f"{urljoin(url, 'a%20b.ts')}?{url.partition('?')[2]}"
    assert client.get(url).content == playlist
    assert client.get(child).content == files["a b.ts"]


@pytest.mark.parametrize("body", [{"kind": "nonsense"}, {"nonsense": 1}, {"options": {"nonsense": 1}}, []])
def test_what_cannot_be_added_is_refused_with_a_reason(scratch: Simulator, body: object) -> None:
    answer = scratch.control.post("/assets", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_can_be_added(scratch: Simulator, kind: str) -> None:
    asset = scratch.add_asset(kind)

    assert scratch.get("/recording-assets", session_id=asset["row"]["session_id"]).json()["data"] == [
        asset["row"]
    ]
