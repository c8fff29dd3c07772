from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.http import cancellation
from transfer.errors import BudgetTooSmall
from transfer.memory import Block, MemoryBudget

KIB = 1024


def test_a_block_holds_what_was_asked_for() -> None:
    block = MemoryBudget(KIB * KIB).reserve(100_000)

    assert len(block.first(100_000)) == 100_000


def test_a_released_buffer_is_used_again() -> None:
    memory = MemoryBudget(KIB * KIB)
    block = memory.reserve(100_000)
    block.first(5)[:] = b"mark!"
    block.release()

    assert bytes(memory.reserve(100_000).first(5)) == b"mark!"


def test_releasing_twice_counts_once() -> None:
    memory = MemoryBudget(KIB * KIB)
    one, other = memory.reserve(100_000), memory.reserve(100_000)
    one.release()
    one.release()

    assert memory.in_use_bytes > 0
    other.release()
    assert memory.in_use_bytes == 0


def test_what_could_never_be_granted_is_refused_at_once() -> None:
    with pytest.raises(BudgetTooSmall, match=r"101 bytes .* 100 bytes .*ARCHIVER_TRANSFER_MEMORY"):
        MemoryBudget(100).reserve(101)


def test_all_of_the_memory_may_be_one_block() -> None:
    assert len(MemoryBudget(100).reserve(100).first(100)) == 100


@given(st.lists(st.tuples(st.integers(1, 300 * KIB), st.booleans()), max_size=60))
@settings(deadline=None)
def test_in_use_and_spare_together_stay_within_the_limit(steps: list[tuple[int, bool]]) -> None:
    limit = 1024 * KIB
    memory = MemoryBudget(limit)
    held: list[Block] = []
    for size_bytes, release in steps:
        if held and (release or memory.in_use_bytes + 2 * size_bytes + 64 * KIB > limit):
            held.pop().release()
        if memory.in_use_bytes + 2 * size_bytes + 64 * KIB <= limit:
            held.append(memory.reserve(size_bytes))

        assert memory.in_use_bytes + memory.spare_bytes <= limit
    assert memory.peak_bytes <= limit


def test_who_asked_first_is_served_first() -> None:
    """A stream of small wishes does not starve a large one."""
    memory = MemoryBudget(256 * KIB)
    holder = memory.reserve(256 * KIB)
    served: list[str] = []

    def want(name: str, size_bytes: int) -> None:
        block = memory.reserve(size_bytes)
        served.append(name)
        block.release()

    threads = []
    for number, (name, size_bytes) in enumerate([("large", 256 * KIB), ("small", KIB), ("small", KIB)]):
        threads.append(threading.Thread(target=want, args=(name, size_bytes)))
        threads[-1].start()
        while memory.waiting <= number:
            threading.Event().wait(0.001)
    holder.release()
    for thread in threads:
        thread.join(10)

    assert served == ["large", "small", "small"]


def test_a_stop_ends_the_wait_and_leaves_the_queue_in_order() -> None:
    class Told(Exception):
        pass

    def told() -> None:
        raise Told

    memory = MemoryBudget(100)
    block = memory.reserve(100)
    with cancellation.watched(told), pytest.raises(Told):
        memory.reserve(1)
    block.release()

    memory.reserve(100).release()
    assert memory.waiting == 0
