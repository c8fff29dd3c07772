from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.hms.errors import HmsInvalidResponse
from archiver.hms.webhooks import RecordingEvent, parse_event

VOD: dict[str, Any] = {
    "version": "2.0",
    "id": "w1",
    "account_id": "acc",
    "timestamp": "2026-08-01T10:00:00Z",
    "type": "hls.recording.success",
    "data": {
        "room_id": "r1",
        "session_id": "s1",
        "recording_id": "rec1",
        "recording_path": "s3://bucket/vod/main.m3u8",
        "recording_single_files": [{"asset_id": "a1", "recording_path": "x"}, {"asset_id": "a2"}, {"asset_id": "a1"}],
        "recording_thumbnails": [
            {
                "location": "s3://bucket/t/1.png",
                "url": "https://storage.test/t/1.png?sig=MARKED",
                "offset": 30,
                "width": 1280,
                "height": 720,
            },
            {"location": "s3://bucket/t/2.png", "url": "https://storage.test/t/2.png?sig=MARKED"},
        ],
    },
}  # fmt: skip


def _parse(**data: Any) -> RecordingEvent:
    return parse_event(json.dumps({"type": "hls.recording.success", "data": data}))


def test_a_finished_vod_names_its_assets_and_its_signed_thumbnails() -> None:
    event = parse_event(json.dumps(VOD).encode())

    assert (event.type, event.room_id, event.session_id, event.recording_id) == (
        "hls.recording.success", "r1", "s1", "rec1",
    )  # fmt: skip
    assert event.asset_ids == ("a1", "a2")
    first, second = event.thumbnails
    assert (first.location, first.offset, first.width, first.height) == ("s3://bucket/t/1.png", 30, 1280, 720)
    assert first.url.get_secret_value() == "https://storage.test/t/1.png?sig=MARKED"
    assert (second.offset, second.width, second.height) == (None, None, None)


def test_a_thumbnails_url_is_not_in_a_repr() -> None:
    assert "MARKED" not in repr(parse_event(json.dumps(VOD)))


def test_a_finished_transcription_names_an_asset_for_each_output() -> None:
    event = _parse(
        transcript_txt_asset_id="a1", transcript_srt_asset_id="a2", summary_json_asset_id="", x="a3"
    )

    assert event.asset_ids == ("a1", "a2")


@pytest.mark.parametrize(
    "thumbnail",
    [
        None,
        "s3://x",
        {},
        {"location": "l"},
        {"url": "u"},
        {"location": "", "url": "u"},
        {"location": "l", "url": {}},
    ],
)
def test_a_thumbnail_without_location_or_url_is_left_out(thumbnail: object) -> None:
    good = {"location": "l", "url": "https://x.test/1"}

    event = _parse(recording_thumbnails=[thumbnail, good])

    assert [found.location for found in event.thumbnails] == ["l"]


@pytest.mark.parametrize("odd", ["wide", None, True, [], 10**400, "inf", "nan"])
def test_an_odd_width_is_no_reason_to_lose_the_thumbnail(odd: object) -> None:
    event = _parse(
        recording_thumbnails=[{"location": "l", "url": "u", "width": odd, "height": "720", "offset": "1.5"}]
    )

    assert [(found.width, found.height, found.offset) for found in event.thumbnails] == [(None, 720, 1.5)]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"type": 5}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_an_event_is_invalid(body: bytes) -> None:
    with pytest.raises(HmsInvalidResponse, match="no JSON object"):
        parse_event(body)


words = st.text("aé\ud800 1", max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)
rows = st.lists(
    st.dictionaries(st.sampled_from(["location", "url", "width", "asset_id"]), json_values), max_size=3
)
fields = st.sampled_from(
    ["room_id", "recording_single_files", "recording_thumbnails", "asset_id", "a_asset_id"]
)


@given(st.dictionaries(fields, json_values | rows))
def test_no_data_of_an_event_makes_it_unreadable(data: dict[str, Any]) -> None:
    assert _parse(**data).type == "hls.recording.success"
