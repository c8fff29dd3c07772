from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.http import cancellation
from archiver.transfer.errors import BudgetTooSmall
from archiver.transfer.memory import MemoryBudget, Reservation
from tests.transfer.builders import reserved

KIB = 1024


def test_releasing_twice_counts_once() -> None:
    memory = MemoryBudget(KIB * KIB)
    one, other = reserved(memory, 100_000), reserved(memory, 100_000)
    one.release()
    one.release()

    assert memory.in_use_bytes > 0
    other.release()
    assert memory.in_use_bytes == 0


def test_what_could_never_be_granted_is_refused_at_once() -> None:
    with pytest.raises(BudgetTooSmall, match=r"101 bytes .* 100 bytes .*ARCHIVER_TRANSFER_MEMORY"):
        reserved(MemoryBudget(100), 101)


def test_all_of_the_memory_may_be_one_reservation() -> None:
    memory = MemoryBudget(100)
    reservation = reserved(memory, 100)

    assert memory.in_use_bytes == reservation.size_bytes == 100
    assert memory.try_reserve(1) is None


def written(reservation: Reservation, byte: bytes) -> bytes:
    """Return what is read from the reserved memory, filled with `byte`."""
    file = reservation.file()
    assert file is not None
    file.write(byte * reservation.size_bytes)
    reservation.reuse(file)
    return file.getvalue()


def test_memory_of_the_same_size_is_used_again() -> None:
    memory = MemoryBudget(10 * KIB, reused_bytes=KIB)
    _other, one = reserved(memory, KIB), reserved(memory, KIB)
    file = one.file()
    assert file is not None
    one.reuse(file)
    one.release()

    assert memory.spare_bytes == KIB
    assert reserved(memory, KIB + 1).file() is not file
    assert reserved(memory, KIB).file() is file


def test_who_still_reads_what_was_there_reads_just_that() -> None:
    memory = MemoryBudget(10 * KIB, reused_bytes=KIB)
    _other, one = reserved(memory, KIB), reserved(memory, KIB)
    first = written(one, b"a")
    one.release()
    second = written(reserved(memory, KIB), b"b")

    assert (first, second) == (b"a" * KIB, b"b" * KIB)


def test_memory_that_somebody_may_still_write_to_is_not_given_to_others() -> None:
    memory = MemoryBudget(10 * KIB, reused_bytes=KIB)
    _other, cancelled = reserved(memory, KIB), reserved(memory, KIB)
    file = cancelled.file()
    cancelled.release()  # without `reuse`

    assert reserved(memory, KIB).file() is not file


def test_small_memory_is_not_kept() -> None:
    assert reserved(MemoryBudget(10 * KIB, reused_bytes=KIB), KIB - 1).file() is None


def test_an_idle_process_keeps_none() -> None:
    memory = MemoryBudget(10 * KIB, reused_bytes=KIB)
    one, other = reserved(memory, KIB), reserved(memory, 2 * KIB)
    for reservation in (one, other):
        written(reservation, b"a")
    one.release()
    assert memory.spare_bytes == KIB

    other.release()
    assert memory.spare_bytes == 0


@given(
    st.lists(st.tuples(st.integers(1, 300), st.sampled_from(["try", "ask", "leave", "release"])), max_size=60)
)
@settings(deadline=None)
def test_whatever_is_asked_left_and_released_what_is_in_use_stays_within_the_limit(
    steps: list[tuple[int, str]],
) -> None:
    memory = MemoryBudget(1000, reused_bytes=100)
    held: list[Reservation] = []
    asked = []
    for size_bytes, step in steps:
        if step == "try" and (reservation := memory.try_reserve(size_bytes)) is not None:
            held.append(reservation)
        elif step == "ask":
            asked.append(memory.ask(size_bytes, held.append))
        elif step == "leave" and asked:
            asked.pop(len(asked) // 2).leave()
        elif step == "release" and held:
            reservation = held.pop(len(held) // 2)
            file = reservation.file()
            if file is not None:
                reservation.reuse(file)
            reservation.release()

        assert memory.in_use_bytes == sum(reservation.size_bytes for reservation in held)
        assert memory.in_use_bytes + memory.spare_bytes <= memory.limit_bytes
        assert memory.in_use_bytes <= memory.peak_bytes <= 1000
        assert not memory.waiting or memory.in_use_bytes > 700, "who waits could be served"
    for one in asked:
        one.leave()
    for reservation in held:
        reservation.release()
    assert (memory.in_use_bytes, memory.waiting) == (0, 0)


def test_what_was_granted_to_one_who_left_meanwhile_is_theirs_to_release() -> None:
    memory, granted = MemoryBudget(100), list[Reservation]()
    holder = reserved(memory, 100)
    asked = memory.ask(100, granted.append)
    holder.release()

    asked.leave()

    assert [reservation.size_bytes for reservation in granted] == [100]
    granted[0].release()
    assert memory.in_use_bytes == 0


def test_who_leaves_lets_the_next_go_first() -> None:
    memory, granted = MemoryBudget(100), list[Reservation]()
    reserved(memory, 50)
    large = memory.ask(100, granted.append)
    memory.ask(50, granted.append)

    large.leave()

    assert [reservation.size_bytes for reservation in granted] == [50]


def test_who_asked_first_is_served_first() -> None:
    """A stream of small wishes does not starve a large one."""
    memory = MemoryBudget(256 * KIB)
    holder = reserved(memory, 256 * KIB)
    served: list[str] = []

    def want(name: str, size_bytes: int) -> None:
        reservation = reserved(memory, size_bytes)
        served.append(name)
        reservation.release()

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
    reservation = reserved(memory, 100)
    with cancellation.watched(told), pytest.raises(Told):
        reserved(memory, 1)
    reservation.release()

    reserved(memory, 100).release()
    assert memory.waiting == 0


def test_what_is_read_ahead_takes_a_quarter_at_most_and_never_what_others_wait_for() -> None:
    memory = MemoryBudget(100)
    first, second = memory.try_ahead(20), memory.try_ahead(5)
    assert first is not None
    assert second is not None
    assert memory.try_ahead(1) is None
    assert memory.in_use_bytes == 25

    first.release()
    first.release()
    again = memory.try_ahead(20)
    assert again is not None
    again.release()
    second.release()
    assert memory.in_use_bytes == 0

    holder = reserved(memory, 90)
    asked = memory.ask(50, lambda reservation: reservation.release())
    assert memory.try_ahead(1) is None, "somebody waits"
    asked.leave()
    assert memory.try_ahead(20) is None, "there is no room"
    holder.release()
