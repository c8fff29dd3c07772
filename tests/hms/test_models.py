"""What of an asset's description is a credential is not kept as its path."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from archiver.hms.models import Asset, parse_time, storage_path


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s3://b/x.mp4?X-Amz-Signature=CANARY&X-Amz-Date=1", "s3://b/x.mp4"),
        ("/a/b.mp4?X-Amz-Signature=CANARY", "/a/b.mp4"),
        ("b.mp4?sig=CANARY", "b.mp4"),
        ("s3://b/x.mp4?flag&token=CANARY/with/slashes?and=more", "s3://b/x.mp4"),
        ("s3://b/what?/x.mp4?token=CANARY", "s3://b/what?/x.mp4"),
        ("https://cdn.example/x.mp4?CANARY", "https://cdn.example/x.mp4"),
        ("https://cdn.example/x.mp4#CANARY", "https://cdn.example/x.mp4"),
        ("s3://user:CANARY@b/x.mp4", "s3://b/x.mp4"),
        ("s3://b/what?.mp4", "s3://b/what?.mp4"),
        ("s3://b/rec#1/x.mp4", "s3://b/rec#1/x.mp4"),
        ("s3://b/a=b/x.mp4", "s3://b/a=b/x.mp4"),
        ("s3://b/a//x@y.mp4", "s3://b/a//x@y.mp4"),
    ],
)
def test_a_path_has_no_query_and_keeps_its_letters(given: str, kept: str) -> None:
    asset = Asset.parse({"id": "1", "path": given})

    assert asset.path == kept
    assert storage_path(kept) == kept
    assert asset.raw["path"] == given


def test_a_path_that_is_nothing_but_a_query_is_none() -> None:
    assert Asset.parse({"id": "1", "path": "?sig=CANARY"}).path is None


def test_the_path_of_a_thumbnail_has_no_query_and_its_url_keeps_it() -> None:
    url = "https://cdn.example/t.png?sig=needed"

    asset = Asset.parse(
        {
            "id": "1",
            "thumbnails": [
                "s3://b/t.png?sig=CANARY",
                url,
                {"location": "s3://b/u.png?sig=CANARY", "url": url, "offset": 3},
                7,
            ],
        }
    )

    assert asset.thumbnails == (
        "s3://b/t.png",
        url,
        {"location": "s3://b/u.png", "url": url, "offset": 3},
        7,
    )


def test_a_long_path_of_question_marks_costs_no_time() -> None:
    hostile = "s3://b/" + "?" * 1_000_000

    assert storage_path(hostile) == hostile


def at(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        # RFC 3339, section 5.8
        ("1985-04-12T23:20:50.52Z", at(1985, 4, 12, 23, 20, 50, 520_000)),
        ("1996-12-19T16:39:57-08:00", at(1996, 12, 20, 0, 39, 57)),
        ("1990-12-31T23:59:60Z", at(1991, 1, 1)),
        ("1990-12-31T15:59:60-08:00", at(1991, 1, 1)),
        ("1937-01-01T12:00:27.87+00:20", at(1937, 1, 1, 11, 40, 27, 870_000)),
        # section 5.6
        ("2026-03-02t07:44:27z", at(2026, 3, 2, 7, 44, 27)),
        ("2026-03-02 07:44:27Z", at(2026, 3, 2, 7, 44, 27)),
        ("2026-03-02T07:44:27-00:00", at(2026, 3, 2, 7, 44, 27)),
        ("2026-03-02T07:44:27+23:59", at(2026, 3, 1, 7, 45, 27)),
        ("2026-03-02T07:44:27.1Z", at(2026, 3, 2, 7, 44, 27, 100_000)),
        ("2026-03-02T07:44:27.0105160429999Z", at(2026, 3, 2, 7, 44, 27, 10_516)),
        ("2026-03-02T07:44:27." + "9" * 300 + "Z", at(2026, 3, 2, 7, 44, 27, 999_999)),
        ("2028-02-29T00:00:00Z", at(2028, 2, 29)),
        ("0001-01-01T00:00:00Z", at(1, 1, 1)),
        ("9999-12-31T23:59:59Z", at(9999, 12, 31, 23, 59, 59)),
    ],
)
def test_every_legal_form_of_a_time_is_understood(text: str, moment: datetime) -> None:
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "1700000000", "2026-03-02", "07:44:27Z", " 2026-03-02T07:44:27Z"),
        *("2026-03-02T07:44:27", "2026-03-02T07:44Z", "2026-03-02T07:44:27+01", "2026-03-02T07:44:27+0100"),
        *("20260302T074427Z", "2026-W10-1T07:44:27Z", "2026-061T07:44:27Z", "2026-3-2T7:44:27Z"),
        *("2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-03-00T00:00:00Z", "2027-02-29T00:00:00Z"),
        *("2026-03-02T24:00:00Z", "2026-03-02T07:60:00Z", "2026-03-02T07:44:61Z", "2026-03-02T07:44:27.Z"),
        *(
            "2026-03-02T07:44:27,5Z",
            "2026-03-02T07:44:27+24:00",
            "2026-03-02T07:44:27Z ",
            "2026-03-02T07:44:27Z\n",
        ),
        *(
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:60Z",
            "2026-03-02_07:44:27Z",
        ),
        "٢٠٢٦-03-02T07:44:27Z",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    assert parse_time(text) is None
