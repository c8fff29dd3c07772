"""Make assets of every kind, by name."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import PurePosixPath
from typing import Any

from archiver.simulator.config import OWN_BUCKET, UNDECLARED_BUCKET
from archiver.simulator.recordings.assets import (
    HMS_BUCKET,
    Asset,
    Delivery,
    Form,
    Identity,
    Thumbnail,
    prefix_of,
    row_of,
    storage_path,
)
from archiver.simulator.recordings.content import MP4_HEAD, Content, Held, Synthetic
from archiver.simulator.recordings.trees import MASTER, SyntheticTree, medium, recorded_tree
from archiver.simulator.recordings.zips import streamed_zip, zipped

SECONDS = 6  # how long the recorded samples are
_THUMBNAILS = ("thumbnail-0.png", "thumbnail-1.png")


@dataclass(frozen=True)
class Options:
    """Options of all kinds; each reads only its own."""

    size_bytes: int = 1 << 20
    layer: int = 1
    layers: int = 4
    segments: int = 10
    segment_bytes: int = 250 * 1024
    delivery: Delivery | None = None
    redirect: str | None = None
    type: str | None = None
    name: str | None = None  # of the file of the kind `file`
    data_base64: str | None = None  # its bytes
    files_base64: Mapping[str, str] | None = None  # of the kind `files`: bytes by path
    main: str = MASTER  # of the kind `files`

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Options:
        """Parse options. Raises ValueError for an unknown name."""
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown options {sorted(unknown)}")
        delivery = values.get("delivery")
        return cls(**{**values, "delivery": Delivery(delivery) if delivery else None})


Kind = Callable[[Identity, Options], Asset]


def make(kind: str, identity: Identity, options: Options, row: Mapping[str, Any] | None = None) -> Asset:
    """Make an asset; `row` overrides fields of its row. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(sorted(KINDS))}")
    asset = replace(KINDS[kind](identity, options), kind=kind)
    return replace(asset, row={**asset.row, **row}) if row else asset


def _one_file(
    identity: Identity,
    type_: str,
    key: str,
    content: Content,
    metadata: Mapping[str, Any],
    bucket: str = HMS_BUCKET,
    **changes: Any,
) -> Asset:
    folder, name = str(PurePosixPath(prefix_of(bucket)) / PurePosixPath(key).parent), PurePosixPath(key).name
    row = row_of(
        identity,
        type=type_,
        path=storage_path(bucket, f"{folder}/{name}"),
        size=content.size_bytes,
        duration=SECONDS,
        metadata=dict(metadata),
    )
    files = {name: content}
    return Asset("", identity, row, Form.FILE, folder, files, name, files, bucket=bucket, **changes)


def _beam(identity: Identity) -> str:
    return f"beam/{identity.room_id}/{identity.date}/Rec-{identity.room_id}-{identity.epoch}.mp4"


def _in_session(identity: Identity, name: str) -> str:
    return f"{identity.room_id}/{identity.date}/{identity.session_id}/{name}"


def composite(identity: Identity, _: Options) -> Asset:
    metadata = {"resolution": {"width": 426, "height": 240}, "layer": "0"}
    return _one_file(identity, "room-composite", _beam(identity), medium("composite.mp4"), metadata)


def composite_legacy(identity: Identity, _: Options) -> Asset:
    key = _in_session(identity, f"Rec-{identity.session_id}-{identity.epoch}.mp4")
    return _one_file(identity, "room-composite-legacy", key, medium("composite-legacy.mp4"), {})


def composite_layer(identity: Identity, options: Options) -> Asset:
    width, height = ((426, 240), (320, 180), (256, 144))[options.layer - 1]
    name = f"Rec-{identity.room_id}-{identity.epoch}-{options.layer}.mp4"
    key = f"hls/{identity.room_id}/{identity.date}/{identity.epoch}/file-recording/{name}"
    metadata = {"resolution": {"width": width, "height": height}, "layer": str(options.layer)}
    return _one_file(
        identity, "room-composite", key, medium(f"composite-layer-{options.layer}.mp4"), metadata
    )


def chat(identity: Identity, _: Options) -> Asset:
    key = f"chat/{identity.room_id}/{identity.date}/Rec-{identity.room_id}-{identity.epoch}.csv"
    return _one_file(identity, "chat", key, medium("chat.csv"), {})


def _document(type_: str, suffix: str) -> Kind:
    def build(identity: Identity, _: Options) -> Asset:
        key = f"{type_}/{identity.room_id}/{identity.date}/Rec-{identity.room_id}-{identity.epoch}.{suffix}"
        return _one_file(identity, type_, key, medium(f"{type_}.{suffix}"), {"output_mode": suffix})

    return build


def _track(track_type: str) -> Kind:
    def build(identity: Identity, _: Options) -> Asset:
        key = _in_session(identity, f"peer-ada/stream-ada/track-{track_type}.webm")
        metadata = {
            "track_id": f"track-{track_type}",
            "stream_id": "stream-ada",
            "peer_id": "peer-ada",
            "track_type": track_type,
        }
        return _one_file(identity, "track", key, medium(f"track-{track_type}.webm"), metadata)

    return build


def stream(identity: Identity, _: Options) -> Asset:
    key = _in_session(identity, f"peer-ada/stream-ada/Rec-stream-ada-{identity.epoch}.mp4")
    metadata = {
        "stream_id": "stream-ada",
        "peer_id": "peer-ada",
        "user_id": "user-1",
        "stream_type": "regular",
    }
    return _one_file(identity, "stream", key, medium("stream.mp4"), metadata)


def external(identity: Identity, _: Options) -> Asset:
    metadata = {"resolution": {"width": 320, "height": 180}, "layer": "0"}
    content = medium("composite-legacy.mp4")
    return _one_file(
        identity, "room-composite", _beam(identity), content, metadata, OWN_BUCKET, expected_state="external"
    )


def unknown_type(identity: Identity, _: Options) -> Asset:
    key = f"whiteboard/{identity.room_id}/{identity.date}/Rec-{identity.room_id}-{identity.epoch}.png"
    return _one_file(identity, "whiteboard", key, medium("thumbnail-1.png"), {"pages": "1"})


def failed(identity: Identity, _: Options) -> Asset:
    row = row_of(identity, type="room-composite", status="failed", metadata={"layer": "0"})
    return Asset("", identity, row, Form.NONE, "failed", {}, None, {}, expected_state="source_failed")


def large(identity: Identity, options: Options) -> Asset:
    """Make an MP4 of `size_bytes`, generated while read."""
    content = Synthetic(options.size_bytes, identity.asset_id, head=MP4_HEAD)
    metadata = {"resolution": {"width": 1920, "height": 1080}, "layer": "0"}
    return _one_file(identity, "room-composite", _beam(identity), content, metadata)


def file(identity: Identity, options: Options) -> Asset:
    """Make a file of any bytes and name: `data_base64`, `name`, `type`."""
    data = base64.b64decode(options.data_base64 or "")
    key = _in_session(identity, f"{identity.asset_id}/{options.name or 'file.mp4'}")
    return _one_file(
        identity, options.type or "room-composite", key, Held(data), {}, redirect=options.redirect
    )


def _vod(
    identity: Identity,
    tree: Mapping[str, Content],
    delivery: Delivery,
    *,
    size_bytes: int | None = None,
    seconds: int = SECONDS,
    main: str = MASTER,
    thumbnails_in: str | None = None,
    bucket: str = HMS_BUCKET,
    layers: int = 2,
    **changes: Any,
) -> Asset:
    folder = f"{prefix_of(bucket)}/hls/{identity.room_id}/{identity.date}/{identity.epoch}"
    objects: Mapping[str, Content]
    if isinstance(tree, SyntheticTree):
        folder, objects, prefix = f"{folder}/vod", tree, ""
    else:
        prefix = "vod/"
        objects = {f"{prefix}{path}": content for path, content in tree.items()}
    thumbnails = []
    if thumbnails_in is not None:
        for number, name in enumerate(_THUMBNAILS):
            objects = {**objects, f"{thumbnails_in}{name}": medium(name)}
            thumbnails.append(Thumbnail(f"{thumbnails_in}{name}", 1 + 3 * number, 256, 144))
    row = row_of(
        identity,
        type="room-vod",
        path=storage_path(bucket, f"{folder}/{prefix}{main}"),
        # Which size a VOD has is not documented: here, the sum of its tree.
        size=size_bytes if size_bytes is not None else sum(content.size_bytes for content in tree.values()),
        duration=seconds,
        thumbnails=[storage_path(bucket, f"{folder}/{thumbnail.name}") for thumbnail in thumbnails] or None,
        metadata={"num_layers": str(layers), "max_width": "426", "max_height": "240"},
    )
    return Asset(
        *("", identity, row, Form.HLS, folder, objects, f"{prefix}{main}", tree),
        delivery=delivery,
        thumbnails=tuple(thumbnails),
        bucket=bucket,
        **changes,
    )


def vod_ts(identity: Identity, options: Options) -> Asset:
    """Make a VOD whose children, and thumbnails, need the master's query."""
    delivery = options.delivery or Delivery.CDN_TOKEN
    return _vod(identity, recorded_tree("vod-ts"), delivery, thumbnails_in="vod/thumbnails/")


def vod_fmp4(identity: Identity, options: Options) -> Asset:
    """Make a VOD whose URL does not cover its thumbnails: only the webhook does."""
    delivery = options.delivery or Delivery.CDN_RELATIVE
    return _vod(identity, recorded_tree("vod-fmp4"), delivery, thumbnails_in="thumbnails/")


def vod_cookies(identity: Identity, _: Options) -> Asset:
    return _vod(identity, recorded_tree("vod-ts"), Delivery.CDN_COOKIES)


def vod_redirect(identity: Identity, options: Options) -> Asset:
    """Make a VOD whose master redirects to another folder, which its children are relative to."""
    delivery = options.delivery or Delivery.CDN_TOKEN
    return _vod(identity, recorded_tree("vod-fmp4"), delivery, redirect=options.redirect or "here")


def vod_source_access(identity: Identity, _: Options) -> Asset:
    """Make a VOD in the customer's own bucket, of which only the master is signed."""
    tree = recorded_tree("vod-ts")
    return _vod(
        identity, tree, Delivery.SIGNED, bucket=UNDECLARED_BUCKET, expected_state="needs_source_access"
    )


def tree(identity: Identity, options: Options) -> Asset:
    made = SyntheticTree(identity.asset_id, options.layers, options.segments, options.segment_bytes)
    delivery = options.delivery or Delivery.CDN_TOKEN
    return _vod(
        identity, made, delivery, size_bytes=made.total_bytes, seconds=made.seconds, layers=options.layers
    )


def files(identity: Identity, options: Options) -> Asset:
    """Make any tree: `files_base64`, `main`, `delivery`."""
    given = {path: Held(base64.b64decode(data)) for path, data in (options.files_base64 or {}).items()}
    delivery = options.delivery or Delivery.CDN_RELATIVE
    return _vod(identity, given, delivery, main=options.main, redirect=options.redirect)


def _zip(identity: Identity, content: Content, whole: Mapping[str, Content], **changes: Any) -> Asset:
    name = f"Rec-{identity.room_id}-{identity.epoch}.zip"
    key = f"hls/{identity.room_id}/{identity.date}/{identity.epoch}/vod/{name}"
    metadata = {"num_layers": "2", "max_width": "426", "max_height": "240"}
    asset = _one_file(identity, "room-vod", key, content, metadata)
    return replace(asset, form=Form.ZIP, whole=whole, **changes)


def vod_zip_stored(identity: Identity, _: Options) -> Asset:
    """Make a zip of stored members, with data descriptors."""
    files = recorded_tree("vod-ts")
    return _zip(identity, zipped(files, deflate=False), files)


def vod_zip_deflated(identity: Identity, _: Options) -> Asset:
    files = recorded_tree("vod-fmp4")
    return _zip(identity, zipped(files, deflate=True), files)


def zip_tree(identity: Identity, options: Options) -> Asset:
    """Make a zip of stored members of the kind `tree`, of any size."""
    made = SyntheticTree(identity.asset_id, options.layers, options.segments, options.segment_bytes)
    asset = _zip(identity, streamed_zip(made), made)
    return replace(asset, row={**asset.row, "duration": made.seconds})


def hostile_playlist(identity: Identity, _: Options) -> Asset:
    """Make a VOD whose master names internal addresses (SSRF)."""
    master = (
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nhttp://169.254.169.254/latest/meta-data/a.m3u8\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=2000\nhttp://127.0.0.1:1/b.m3u8\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=3000\nfile:///etc/passwd\n"
    )
    return _vod(identity, {MASTER: Held(master.encode())}, Delivery.CDN_RELATIVE, expected_state="refused")


def hostile_zip_slip(identity: Identity, _: Options) -> Asset:
    evil = {"../../escaped.txt": Held(b"out of the folder"), **recorded_tree("vod-ts")}
    return _zip(identity, zipped(evil, deflate=False), {}, expected_state="quarantined")


def hostile_zip_bomb(identity: Identity, _: Options) -> Asset:
    evil = {**recorded_tree("vod-ts"), "bomb.ts": Held(bytes(128 << 20))}
    return _zip(identity, zipped(evil, deflate=True), {}, expected_state="quarantined")


def hostile_redirect(identity: Identity, options: Options) -> Asset:
    """Make an asset that redirects to a cloud metadata address, or to `redirect`."""
    target = options.redirect or "http://169.254.169.254/latest/meta-data/"
    return replace(composite(identity, options), redirect=target, expected_state="refused")


def hostile_id(identity: Identity, options: Options) -> Asset:
    asset = composite(identity, options)
    return replace(asset, row={**asset.row, "id": f"../../etc/{asset.id}"}, expected_state="refused")


def hostile_html(identity: Identity, _: Options) -> Asset:
    """Make an MP4 that is always a web page."""
    page = Held(b"<!DOCTYPE html><html><body>Please log in</body></html>")
    metadata = {"resolution": {"width": 426, "height": 240}, "layer": "0"}
    return _one_file(
        identity, "room-composite", _beam(identity), page, metadata, expected_state="quarantined"
    )


KINDS: Mapping[str, Kind] = {
    "composite": composite,
    "composite-legacy": composite_legacy,
    "composite-layer": composite_layer,
    "chat": chat,
    "transcript-txt": _document("transcript", "txt"),
    "transcript-srt": _document("transcript", "srt"),
    "transcript-json": _document("transcript", "json"),
    "summary": _document("summary", "json"),
    "track-audio": _track("audio"),
    "track-video": _track("video"),
    "stream": stream,
    "external": external,
    "unknown-type": unknown_type,
    "failed": failed,
    "vod-ts": vod_ts,
    "vod-fmp4": vod_fmp4,
    "vod-cookies": vod_cookies,
    "vod-redirect": vod_redirect,
    "vod-source-access": vod_source_access,
    "vod-zip-stored": vod_zip_stored,
    "vod-zip-deflated": vod_zip_deflated,
    "large": large,
    "tree": tree,
    "zip-tree": zip_tree,
    "file": file,
    "files": files,
    "hostile-playlist": hostile_playlist,
    "hostile-zip-slip": hostile_zip_slip,
    "hostile-zip-bomb": hostile_zip_bomb,
    "hostile-redirect": hostile_redirect,
    "hostile-id": hostile_id,
    "hostile-html": hostile_html,
}
