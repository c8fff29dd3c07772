"""Reading by range: in order, with several windows in flight, and what is asked for again."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.core.contents.read_ahead import SMALL_RANGE_BYTES, RangeReader, ReadAhead
from archiver.transfer.base import SourceInfo
from archiver.transfer.errors import RangesUnreliable, SourceChanged, SourceError, SourceUnavailable
from archiver.transfer.memory import MemoryBudget
from tests.core.contents.zips import AT_ONCE, InMemory

DATA = random.Random(3).randbytes(10_000)


class Failing(InMemory):
    """Raises `error` for the first `times` ranges of more than `above` bytes."""

    def __init__(self, data: bytes, error: SourceError, times: int, above: int = 0) -> None:
        super().__init__(data)
        self._error = error
        self._left = times
        self._above = above
        self._lock = threading.Lock()
        self.asked: list[int] = []

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        with self._lock:
            self.asked.append(len(into))
            fails = len(into) > self._above and self._left > 0
            self._left -= fails
        if fails:
            raise self._error
        super().read_range(start, into, info)


def reader(source: InMemory) -> RangeReader:
    return RangeReader(source, source.info, AT_ONCE)


@given(st.integers(1, 4000), st.integers(1, 10), st.lists(st.integers(0, 3000), max_size=12))
@settings(max_examples=100, deadline=None)
def test_any_steps_through_any_windows_give_the_bytes_in_order(
    window: int, windows: int, steps: list[int]
) -> None:
    with ReadAhead(reader(InMemory(DATA)), 100, len(DATA), window_bytes=window, windows=windows) as ahead:
        for number, step in enumerate(steps):
            step = min(step, len(DATA) - ahead.position)
            at = ahead.position
            if number % 2:
                ahead.skip_to(at + step)
            else:
                assert ahead.read(step) == DATA[at : at + step]
            assert ahead.position == at + step


@pytest.mark.parametrize("limit", [1, 1199, 1200, 2400, 100_000])
@pytest.mark.parametrize("is_left_early", [True, False])
def test_what_is_read_ahead_counts_and_is_released(limit: int, is_left_early: bool) -> None:
    memory, ahead_at_most, stop = MemoryBudget(limit), 0, 30 * 300
    with ReadAhead(reader(InMemory(DATA)), 0, stop, window_bytes=300, windows=8, memory=memory) as ahead:
        got = b""
        while len(got) < (2000 if is_left_early else stop):
            got += ahead.read(100)
            ahead_at_most = max(ahead_at_most, memory.in_use_bytes)
    assert DATA.startswith(got)
    assert ahead_at_most <= limit // 4
    assert (ahead_at_most > 0) == (limit // 4 >= 300), "one window is always there"
    assert memory.in_use_bytes == 0
    assert memory.try_ahead(limit // 4) is not None


def test_memory_of_a_range_that_fails_is_released() -> None:
    memory, source = MemoryBudget(100_000), Failing(DATA, SourceChanged("another ETag"), times=99)
    with (
        pytest.raises(SourceChanged),
        ReadAhead(reader(source), 0, len(DATA), window_bytes=300, memory=memory) as ahead,
    ):
        ahead.read(1000)

    assert memory.in_use_bytes == 0


def test_it_never_goes_back_and_never_past_its_end() -> None:
    with ReadAhead(reader(InMemory(DATA)), 0, 1000, window_bytes=300) as ahead:
        ahead.read(500)
        with pytest.raises(ValueError, match="go back"):
            ahead.skip_to(499)
        with pytest.raises(EOFError):
            ahead.read(501)


@pytest.mark.parametrize(
    "error", [SourceUnavailable("away"), RangesUnreliable("a 200")], ids=lambda error: type(error).__name__
)
def test_a_range_that_fails_for_once_is_asked_for_again(error: SourceError) -> None:
    source = Failing(DATA, error, times=2)

    assert reader(source).read(10, 500) == DATA[10:510]
    assert source.asked == [500] * 3


@pytest.mark.parametrize(
    ("error", "tries"),
    [(SourceUnavailable("away"), 4), (RangesUnreliable("a 200"), 4), (SourceChanged("another"), 1)],
    ids=lambda value: type(value).__name__,
)
def test_a_range_that_keeps_failing_raises(error: SourceError, tries: int) -> None:
    source = Failing(DATA, error, times=100)

    with pytest.raises(type(error)):
        reader(source).read(10, 500)
    assert len(source.asked) == tries


def test_a_server_that_caps_its_ranges_is_asked_for_small_ones_from_then_on() -> None:
    data = random.Random(4).randbytes(3 * SMALL_RANGE_BYTES)
    source = Failing(data, RangesUnreliable("capped"), times=1000, above=SMALL_RANGE_BYTES)
    read = reader(source).read

    assert read(0, len(data)) == data
    before = len(source.asked)
    assert read(5, len(data) - 5) == data[5:]

    assert max(source.asked[before:]) == SMALL_RANGE_BYTES
    assert len(source.asked) - before == 3


def test_a_failure_ahead_is_raised_when_its_bytes_are_reached() -> None:
    class Cut(InMemory):
        def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
            if start >= 600:
                raise SourceChanged("another ETag")
            super().read_range(start, into, info)

    with ReadAhead(reader(Cut(DATA)), 0, len(DATA), window_bytes=300) as ahead:
        assert ahead.read(600) == DATA[:600]
        with pytest.raises(SourceChanged):
            ahead.read(1)
