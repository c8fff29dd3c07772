"""Times in responses are read as botocore reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest import mock

import botocore.utils
import pytest

from storage_backends.s3.timestamps import parse_timestamp


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T12:00:00.000Z",
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00.123456Z",
        "2026-03-01T14:00:00+02:00",
        "2026-03-01T12:00:00",
        "20260301T120000Z",
        "20260301",
        "Sun, 01 Mar 2026 12:00:00 GMT",
        "1772366400",
        "1772366400.5",
        1772366400,
        1772366400.5,
        "0001-01-01T00:00:00Z",
    ],
)
def test_a_time_is_read_as_botocore_reads_it(value: Any) -> None:
    moment = parse_timestamp(value)

    assert moment == botocore.utils.parse_timestamp(value)
    assert moment.utcoffset() == botocore.utils.parse_timestamp(value).utcoffset()


@pytest.mark.parametrize("value", ["", "yesterday", "2026-13-01T12:00:00Z", None])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_timestamp(value)


def test_the_usual_form_does_without_botocore() -> None:
    with mock.patch.object(botocore.utils, "parse_timestamp", side_effect=AssertionError):
        assert parse_timestamp("2026-03-01T12:00:00.000Z") == datetime(2026, 3, 1, 12, tzinfo=UTC)
