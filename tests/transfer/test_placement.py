"""Small objects are copied on one processor, large ones on all that the process may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

import pytest

from transfer import placement
from transfer.placement import Cores, Placement

SMALL, LARGE = 4096, 5 * 1024 * 1024


class Machine:
    """Four processors, of which others take a share."""

    def __init__(self, *cores: int) -> None:
        self.cores = frozenset(cores or (0, 1, 2, 3))
        self.now = 0.0
        self.own = 0.0
        self.others = dict.fromkeys(self.cores, 0.0)  # of a second, each second
        self._busy = dict.fromkeys(self.cores, 100.0)
        self.moves: dict[str, Cores] = {}
        self.refuses = False
        self.placement = Placement(
            allowed=lambda: self.cores,
            move=self._move,
            busy=self._seen,
            own=lambda: self.own,
            clock=lambda: self.now,
        )
        self.placement.enter()

    def _move(self, cores: Cores) -> None:
        if self.refuses:
            raise OSError("no such processor any more")
        self.moves[threading.current_thread().name] = cores

    def _seen(self) -> Mapping[int, float]:
        return dict(self._busy)

    def run(self, seconds: float, answer_bytes: int) -> Cores | None:
        """Where this thread is after so long, in which many answers of this size came."""
        self.now += seconds
        on = self.moves.get(threading.current_thread().name, frozenset())
        for core, share in self.others.items():
            self._busy[core] += share * seconds + (seconds if on == {core} else 0.0)
        self.own += seconds
        for _ in range(100):
            self.placement.moved(answer_bytes)
        self.placement.follow()
        return self.moves.get(threading.current_thread().name)


def test_small_answers_bring_all_threads_to_the_freest_processor() -> None:
    machine = Machine()
    machine.others = {0: 0.9, 1: 0.8, 2: 0.1, 3: 0.9}

    here = machine.run(1, SMALL)
    another = threading.Thread(target=machine.placement.follow, name="another")
    another.start()
    another.join()

    assert here == frozenset({2})
    assert machine.moves["another"] == frozenset({2})


def test_large_answers_are_left_to_the_system() -> None:
    machine = Machine()
    assert machine.run(1, LARGE) is not None
    gathered = machine.run(1, SMALL)
    assert gathered is not None
    assert len(gathered) == 1

    assert machine.run(1, LARGE) == gathered, "not to and fro at each file"
    assert machine.run(3, LARGE) == machine.cores


def test_a_processor_that_others_begin_to_use_is_left_for_a_free_one() -> None:
    machine = Machine()
    machine.others = {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.0}
    assert machine.run(1, SMALL) == frozenset({3})
    assert machine.run(10, SMALL) == frozenset({3}), "what we use of it ourselves is no reason to go"

    machine.others = {0: 0.5, 1: 0.0, 2: 0.5, 3: 0.9}

    assert machine.run(10, SMALL) == frozenset({1})


def test_when_all_are_crowded_alike_it_stays() -> None:
    machine = Machine()
    first = machine.run(1, SMALL)
    machine.others = dict.fromkeys(machine.cores, 0.9)

    assert all(machine.run(10, SMALL) == first for _ in range(10))


def test_at_the_end_the_thread_of_the_owner_may_run_anywhere_again() -> None:
    machine = Machine()
    machine.run(1, SMALL)

    machine.placement.leave()

    assert machine.moves[threading.current_thread().name] == machine.cores


def test_the_engines_of_a_process_share_one_processor_until_the_last_has_ended() -> None:
    machine = Machine()
    machine.placement.enter()
    gathered = machine.run(1, SMALL)
    machine.placement.leave()

    machine.placement.follow()
    assert machine.moves[threading.current_thread().name] == gathered

    machine.placement.leave()
    machine.placement.follow()
    assert machine.moves[threading.current_thread().name] == machine.cores


def test_with_one_processor_there_is_nothing_to_choose() -> None:
    machine = Machine(5)

    assert machine.run(1, SMALL) is None


def test_a_refusal_ends_the_moving_and_nothing_else() -> None:
    machine = Machine()
    machine.refuses = True

    assert machine.run(1, SMALL) is None
    machine.refuses = False
    assert machine.run(10, SMALL) is None


@pytest.mark.skipif(len(placement.allowed_cores()) < 2, reason="one processor")
def test_on_this_machine_a_thread_goes_to_one_processor_and_back() -> None:
    before = os.sched_getaffinity(0)
    real = Placement()
    real.enter()

    for _ in range(100):
        real.moved(SMALL)
    real.follow()
    gathered = os.sched_getaffinity(0)
    real.leave()

    assert (len(gathered), os.sched_getaffinity(0)) == (1, before)
