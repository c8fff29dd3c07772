from __future__ import annotations

import pytest

from archiver.transfer.base import CopyRequest, SourceInfo
from archiver.transfer.checks import Checks
from archiver.transfer.errors import SourceUnavailable
from storage_backends.base import object_key


@pytest.mark.parametrize("arrived_bytes", [0, 9, 11])
def test_as_many_bytes_as_the_source_announced_must_have_arrived(arrived_bytes: int) -> None:
    checks = Checks(CopyRequest(object_key("a.txt"), "text/plain"))
    checks.info = SourceInfo(size_bytes=10, ranges=True)
    checks.whole(10, 0)

    with pytest.raises(SourceUnavailable, match=f"{arrived_bytes} bytes arrived for a.txt, of the 10"):
        checks.whole(arrived_bytes, 0)


def test_of_a_length_that_nobody_announced_any_number_is_taken() -> None:
    checks = Checks(CopyRequest(object_key("a.txt"), "text/plain"))
    checks.info = SourceInfo(size_bytes=None, ranges=False)

    checks.whole(9, 0)
