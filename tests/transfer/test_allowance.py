"""The buffers of a process leave room for all else that it takes, which nobody knows beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.transfer.allowance import Allowance
from archiver.transfer.memory import MemoryBudget, Reservation

MIB = 2**20
LIMIT, MOST, LEAST = 256 * MIB, 136 * MIB, 85 * MIB
PART = 5 * MIB


@dataclass
class Process:
    """As the system shows it: buffers that were written to, and all else."""

    else_bytes: int
    tells: bool = True
    kept_bytes: int = 0  # freed, and not given back to the system
    reserved: list[Reservation] = field(default_factory=list)

    def __post_init__(self) -> None:
        allowance = Allowance(
            LIMIT,
            most_bytes=MOST,
            least_bytes=LEAST,
            resident_bytes=self.resident_bytes,
            give_back=self.give_back,
        )
        self.memory = MemoryBudget(MOST, allowance=allowance)

    def resident_bytes(self) -> int | None:
        if not self.tells:
            return None
        held = sum(reservation.size_bytes for reservation in self.reserved)
        return self.else_bytes + held + self.memory.spare_bytes + self.kept_bytes

    def give_back(self) -> None:
        self.kept_bytes = 0

    def fill(self) -> int:
        """Reserve parts until no more are granted; return how much that is."""
        while (one := self.memory.try_reserve(PART)) is not None:
            self.reserved.append(one)
        return self.memory.in_use_bytes

    def pass_through(self, parts: int) -> int:
        """So many parts, as many at once as are granted; return how much is in use in the end."""
        for _ in range(parts):
            if self.reserved:
                self.reserved.pop(0).release()
            self.fill()
        return self.memory.in_use_bytes

    def empty(self) -> None:
        while self.reserved:
            self.reserved.pop().release()


@pytest.mark.parametrize(
    ("else_mib", "granted_mib"),
    [
        (90, 125),  # 256 less a margin of 10 and what will show soon, in whole parts
        (112, 105),
        (125, 90),
        (160, 85),  # a third, whatever else there is
        (300, 85),
    ],
)
def test_at_first_buffers_take_what_the_process_leaves(else_mib: int, granted_mib: int) -> None:
    assert Process(else_mib * MIB).fill() == granted_mib * MIB


def test_where_the_system_does_not_tell_they_take_the_limit_of_the_budget() -> None:
    assert Process(300 * MIB, tells=False).fill() == MOST // PART * PART


@pytest.mark.parametrize(
    ("grows_by_mib", "ends_mib"),
    [(0, 135), (20, 125), (40, 105), (100, 85)],
    ids=["nothing", "connections", "a cloud's library", "a line for each of 80,000 segments"],
)
def test_while_they_fill_they_follow_what_else_the_process_takes(grows_by_mib: int, ends_mib: int) -> None:
    process = Process(100 * MIB)
    process.fill()
    process.else_bytes += grows_by_mib * MIB

    assert process.pass_through(200) == pytest.approx(ends_mib * MIB, abs=PART)


def test_of_memory_that_was_freed_and_kept_little_counts_for_it_is_given_back() -> None:
    process = Process(100 * MIB)
    before = process.fill()
    process.kept_bytes = 50 * MIB

    assert process.pass_through(4) == pytest.approx(before, abs=PART)
    assert process.kept_bytes == 0


def test_the_next_asset_begins_anew() -> None:
    process = Process(100 * MIB)
    before = process.fill()
    process.else_bytes += 60 * MIB
    assert process.pass_through(100) < before
    process.empty()
    process.else_bytes -= 60 * MIB

    assert process.fill() == before


def test_a_part_larger_than_what_is_allowed_is_granted_when_nothing_else_is_in_use() -> None:
    process = Process(300 * MIB)
    one = process.memory.try_reserve(MIB)
    assert one is not None
    assert process.memory.try_reserve(100 * MIB) is None
    one.release()

    assert process.memory.try_reserve(100 * MIB) is not None


def test_a_part_never_waits_for_what_was_read_ahead_of_it() -> None:
    """What was read ahead may be a quarter of more than is allowed now, and is released when the part is read."""
    process = Process(100 * MIB)
    ahead = process.memory.try_ahead(30 * MIB)
    assert ahead is not None
    process.else_bytes = 300 * MIB
    process.pass_through(100)
    process.empty()

    assert process.memory.try_reserve(100 * MIB) is not None
    ahead.release()


@given(st.lists(st.integers(50, 260), min_size=1, max_size=30), st.data())
def test_whatever_the_process_takes_the_bounds_hold_and_nothing_is_lost(
    else_mib: list[int], data: st.DataObject
) -> None:
    process = Process(else_mib[0] * MIB)
    for mib in else_mib:
        process.else_bytes = mib * MIB
        in_use = process.pass_through(data.draw(st.integers(1, 10)))
        assert LEAST - PART < in_use <= MOST
    process.empty()

    assert process.memory.in_use_bytes == process.memory.spare_bytes == process.memory.waiting == 0
