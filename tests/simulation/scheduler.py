"""Virtual time, and processes that are greenlets: each runs until it calls something outside of itself.

At every such call the scheduler may pause the process, kill it (an abandoned greenlet: nothing of it runs any more,
not even `finally`), or lose the answer after the call took effect. One seed decides everything.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

T = TypeVar("T")

START = datetime(2026, 3, 1, 0, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
TAIL = 60  # events that are kept for the report of a failure


class Violation(AssertionError):
    """An invariant does not hold. `name` says which."""

    def __init__(self, name: str, details: str) -> None:
        super().__init__(name, details)
        self.name = name
        self.details = details

    def __str__(self) -> str:
        return f"{self.name}: {self.details}"


@dataclass(slots=True)
class Weather:
    """How likely each call is interrupted."""

    kill: float = 0.0
    pause: float = 0.0
    lose: float = 0.0
    longest_pause_seconds: float = 2 * HOUR
    pause_at_commit: float = 0.0
    change_in_tree: float = 0.0  # at each segment: its worker is paused, and its source changes meanwhile
    any: float = field(init=False)

    def __post_init__(self) -> None:
        self.any = self.kill + self.pause + self.lose


class Scheduler:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.changes_rng = random.Random(f"changes of {seed}")  # of sources that change while they are copied
        self.keepers_rng = random.Random(f"keepers of {seed}")  # of what keeps an archive, once it is one
        self.seconds = 0.0
        self.weather = Weather()
        self.steps = 0
        self.violation: Violation | None = None
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.over = False
        self.running: Process | None = None  # whose thread runs now, or ran last
        self.hub = getcurrent()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._until = 0.0  # as far as `run_until` goes
        self._digest = hashlib.blake2b(digest_size=16)
        self._not_digested: list[str] = []
        self._abandoned: list[Any] = []
        self.processes: list[Process] = []
        self._now = (0.0, START)

    @property
    def in_hub(self) -> bool:
        return getcurrent() is self.hub

    @property
    def digest(self) -> str:
        """Of all events so far: the same for the same run."""
        self._digest.update("".join(self._not_digested).encode())
        self._not_digested.clear()
        return self._digest.hexdigest()

    def now(self) -> datetime:
        seconds, now = self._now
        if seconds != self.seconds:
            now = START + timedelta(seconds=self.seconds)
            self._now = (self.seconds, now)
        return now

    def note(self, who: str, what: str) -> None:
        line = f"{self.seconds:.3f} {who} {what}"
        self._not_digested.append(line)
        self.tail.append(line)
        self.steps += 1

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(seconds, self.seconds), next(self._order), action))

    def every(self, seconds: Callable[[], float], action: Callable[[], None], first: float = 0.0) -> None:
        def again() -> None:
            action()
            self.at(self.seconds + seconds(), again)

        self.at(self.seconds + first, again)

    def run_until(self, seconds: float) -> None:
        """Raises Violation as soon as there is one."""
        self._until = seconds
        while self._heap and self._heap[0][0] <= seconds and self.violation is None:
            self.seconds, _, action = heapq.heappop(self._heap)
            action()
        if self.violation is not None:
            raise self.violation
        self.seconds = max(self.seconds, seconds)

    def broken(self, name: str, details: str) -> None:
        """Report the first violation; the run ends at the next event."""
        if self.violation is None:
            self.note("oracle", f"VIOLATION {name}: {details}")
            self.violation = Violation(name, details)

    def pass_by(self, seconds: float) -> bool:
        """Let time pass, if nothing else happens until then: as the hub would, without a switch to it and back."""
        if (
            (self._heap and self._heap[0][0] <= seconds)
            or seconds > self._until
            or self.violation is not None
        ):
            return False
        self.seconds = seconds
        return True

    def switch_to_hub(self) -> None:
        self.hub.switch()

    def abandon(self, dead: Any) -> None:
        self._abandoned.append(dead)

    def close(self) -> None:
        """End what was abandoned. Its cleaning up reaches nothing any more."""
        self.over = True
        for process in self.processes:
            self._abandoned.extend(process.let_go())
        for dead in self._abandoned:
            if dead:  # begun and not ended
                dead.throw(GreenletExit)
        self._abandoned.clear()


class Process:
    """A process of the fleet. `run` is called again each time that it starts; `wall_skew` is how far its clock is ahead
    of true time."""

    def __init__(self, scheduler: Scheduler, name: str, run: Callable[[Process], None]) -> None:
        self.scheduler = scheduler
        self.name = name
        self.wall_skew = 0.0
        self.suspended_seconds = 0.0  # while its machine slept: a monotonic clock does not count that
        self.paused_until = 0.0
        self.paused_at = float("-inf")  # the last time
        self._pauses: list[tuple[float, float]] = []  # from when until when, in this life
        self.lives = 0
        self.alive = False
        self.attempt_began = 0.0
        self.source_reads: dict[str, tuple[float, float]] = {}  # the first and last of the attempt, by asset
        self.lease_number = 0  # by the order in which the ledger gave leases
        self.asset_id = ""
        self.looked_at: dict[tuple[str, str], float] = {}  # by store and key: when it was told what is there
        self.about_to_write_at = float("-inf")  # from then on it must look, where a store cannot compare
        self.telling: Any = None  # the message that it sends
        self.locked_at = float("-inf")  # when it asked for the last lock that it has got
        self.is_blind = False  # the ledger did not answer it since it asked for a lock
        self.immortal = False
        self.is_replicating = False
        self.at_next_commit: Callable[[], None] | None = None  # what happens to it just before that
        self._run = run
        self._threads: set[Any] = set()
        scheduler.processes.append(self)

    # -- from outside ----------------------------------------------------------------------------------------
    def start(self) -> None:
        self.lives += 1
        self.alive = True
        self.paused_until = 0.0
        self.is_replicating = False
        self.at_next_commit = None
        self._pauses = [(float("-inf"), self.scheduler.seconds)]
        self.scheduler.note(self.name, "starts")
        self.spawn(lambda: self._run(self))

    def spawn(self, run: Callable[[], None]) -> None:
        """Begin a thread of the process, soon."""
        life = self.lives

        def live() -> None:
            try:
                run()
            except GreenletExit:
                return
            except Violation as violation:
                self.scheduler.broken(violation.name, str(violation))
            except BaseException as error:
                if not self.scheduler.over:
                    self.scheduler.broken("unexpected error", f"{self.name} (life {life}): {error!r}")
                    assert self.scheduler.violation is not None
                    self.scheduler.violation.__cause__ = error
            finally:
                self._threads.discard(thread)

        thread = greenlet(live, parent=self.scheduler.hub)
        self._threads.add(thread)
        self._wake_at(self.scheduler.seconds, thread, life)

    def kill(self, restart_after: float) -> None:
        """From the hub, or by itself."""
        if not self.alive:
            return
        self.alive = False
        self.scheduler.note(self.name, "is killed")
        dead, self._threads = self._threads, set()
        for thread in sorted(dead, key=id):
            self.scheduler.abandon(thread)
        self.scheduler.at(self.scheduler.seconds + restart_after, self.start)
        if getcurrent() in dead:
            self.scheduler.switch_to_hub()
            raise GreenletExit

    def let_go(self) -> set[Any]:
        dead, self._threads, self.alive = self._threads, set(), False
        return dead

    def pause(self, seconds: float, *, machine_sleeps: bool = False) -> None:
        self.paused_at = self.scheduler.seconds
        self.paused_until = max(self.paused_until, self.scheduler.seconds + seconds)
        self._pauses.append((self.scheduler.seconds, self.paused_until))
        if machine_sleeps:
            self.suspended_seconds += seconds
        self.scheduler.note(self.name, f"is paused for {seconds:.0f} s")

    def awake_seconds_since(self, seconds: float) -> float:
        """How long it has run since then."""
        awake, at, now = 0.0, seconds, self.scheduler.seconds
        for begin, end in self._pauses:
            awake += max(begin - at, 0.0)
            at = max(at, end)
        return awake + max(now - at, 0.0)

    def maybe_pause_at_commit(self) -> None:
        """So long that the lease ends and another worker commits meanwhile."""
        scheduler = self.scheduler
        if self.at_next_commit is not None:
            happens, self.at_next_commit = self.at_next_commit, None
            happens()
            self.sleep(0.0)
        elif (
            not (self.immortal or scheduler.in_hub)
            and scheduler.rng.random() < scheduler.weather.pause_at_commit
        ):
            self.pause(scheduler.rng.uniform(5 * MINUTE, HOUR))
            self.sleep(0.0)
        self.about_to_write_at = scheduler.seconds

    # -- clocks ----------------------------------------------------------------------------------------------
    def wall_clock(self) -> datetime:
        return self.scheduler.now() + timedelta(seconds=self.wall_skew)

    def monotonic(self) -> float:
        return self.scheduler.seconds - self.suspended_seconds

    def since_boot(self) -> float:
        """Goes on while the machine sleeps."""
        return self.scheduler.seconds

    # -- by the process itself -------------------------------------------------------------------------------
    def sleep(self, seconds: float) -> None:
        scheduler, me = self.scheduler, getcurrent()
        if me is scheduler.hub:
            return
        life, until = self.lives, scheduler.seconds + max(seconds, 0.0)
        if me in self._threads and self.paused_until <= until and scheduler.pass_by(until):
            return
        self._wake_at(until, me, life)
        scheduler.switch_to_hub()
        if me not in self._threads:  # abandoned, and ended now
            raise GreenletExit

    def park(self) -> None:
        """Until somebody calls what `parked` gives."""
        me = getcurrent()
        self.scheduler.switch_to_hub()
        if me not in self._threads:
            raise GreenletExit

    def parked(self) -> Callable[[], None]:
        """Return what wakes the thread that runs now, once it is parked."""
        me, life = getcurrent(), self.lives
        return lambda: self._wake_at(self.scheduler.seconds, me, life)

    def _wake_at(self, seconds: float, sleeper: Any, life: int) -> None:
        def wake() -> None:
            if life != self.lives or not self.alive:
                return
            if self.paused_until > self.scheduler.seconds:
                self._wake_at(self.paused_until, sleeper, life)
                return
            self.scheduler.running = self
            sleeper.switch()

        self.scheduler.at(seconds, wake)

    def call(
        self, what: str, action: Callable[[], T], lost: Callable[[], Exception], latency: float = 0.0
    ) -> T:
        """Something outside of the process: everything may happen here."""
        scheduler, me = self.scheduler, getcurrent()
        if me is scheduler.hub:
            return action()
        if me not in self._threads:
            raise GreenletExit
        scheduler.note(self.name, what)
        fate = self._fate()
        latency += 0.001 + 0.049 * scheduler.rng.random()
        if fate is None:  # by far the most often
            until = scheduler.seconds + latency
            if self.paused_until > until or not scheduler.pass_by(until):
                self.sleep(latency)
            return action()
        if fate == "kill before":
            self.kill(scheduler.rng.uniform(5, 10 * MINUTE))
        if fate == "pause before":
            self.pause(self._pause_seconds(), machine_sleeps=scheduler.rng.random() < 0.3)
        self.sleep(latency)
        result = action()
        if fate == "kill after":
            self.kill(scheduler.rng.uniform(5, 10 * MINUTE))
        if fate == "pause after":
            self.pause(self._pause_seconds(), machine_sleeps=scheduler.rng.random() < 0.3)
            self.sleep(0.0)
        if fate == "lose":
            scheduler.note(self.name, f"never hears of {what}")
            raise lost()
        return result

    def _fate(self) -> str | None:
        weather, rng = self.scheduler.weather, self.scheduler.rng
        roll = rng.random()
        if roll >= weather.any or self.immortal:
            return None
        half = " before" if rng.random() < 0.5 else " after"
        if roll < weather.kill:
            return "kill" + half
        if roll < weather.kill + weather.pause:
            return "pause" + half
        return "lose"

    def _pause_seconds(self) -> float:
        rng = self.scheduler.rng
        return float(
            rng.choice(
                [20.0, 3 * MINUTE, 20 * MINUTE, rng.uniform(0, self.scheduler.weather.longest_pause_seconds)]
            )
        )
