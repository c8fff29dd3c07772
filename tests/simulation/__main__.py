"""Run seeds of the simulation: `python -m tests.simulation --seed 7` repeats one, `--seeds 1000` runs many, `--planted`
shows which seeds find each planted bug."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext

from tests.simulation.fleet import Outcome, simulate
from tests.simulation.planted import PLANTED, planted

ENOUGH_TO_FIND = 0.95


def main() -> int:
    asked = _arguments()
    if asked.seed is not None:
        return _one(asked.seed, asked.bug[0] if asked.bug else None)
    seeds = range(asked.start, asked.start + asked.seeds)
    with ProcessPoolExecutor(asked.jobs, initializer=_collect_rarely) as pool:
        if asked.planted:
            return _planted(
                pool,
                asked.bug or list(PLANTED),
                seeds,
                seeds.stop - seeds.start if asked.all else 2 * asked.jobs,
            )
        return _many(pool, seeds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and print what happened last")
    parser.add_argument(
        "--bug",
        action="append",
        choices=sorted(PLANTED),
        metavar="NAME",
        help="with --seed or --planted: this bug of planted.py; repeatable",
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--start", type=int, default=1, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--planted", action="store_true", help="plant one bug after the other")
    parser.add_argument(
        "--all", action="store_true", help="with --planted: all seeds, not only until one finds it"
    )
    return parser.parse_args()


def _collect_rarely() -> None:
    """A run leaves a few MB of garbage, and looking for it while it runs costs a twentieth of its time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def run(seed: int, bug: str | None = None) -> Outcome:
    """One seed, in any process. The exception that caused a violation does not travel between processes."""
    with planted(bug) if bug else nullcontext():
        return simulate(seed)


def _one(seed: int, bug: str | None) -> int:
    outcome = run(seed, bug)
    _tell(outcome, bug)
    if outcome.violation is not None and outcome.violation.__cause__ is not None:
        traceback.print_exception(outcome.violation.__cause__)
    return 0 if outcome.violation is None else 1


def _many(pool: ProcessPoolExecutor, seeds: Iterable[int]) -> int:
    began = time.monotonic()
    failed: list[Outcome] = []
    number = 0
    for outcome in _outcomes(pool, seeds, None):
        number += 1
        if outcome.violation is not None:
            failed.append(outcome)
            _tell(outcome)
    failed.sort(key=lambda outcome: outcome.seed)
    _say(f"{number} seeds, {len(failed)} failed, {time.monotonic() - began:.0f} s")
    for outcome in failed:
        _say(f"  --seed {outcome.seed}: {outcome.violation}"[:200])
    return 1 if failed else 0


def _planted(pool: ProcessPoolExecutor, bugs: Sequence[str], seeds: range, at_once: int) -> int:
    """Seeds are tried `at_once`, until one finds the bug. One that fails without any finds none."""
    sound: dict[int, bool] = {}
    found: list[str] = []
    _say("| bug | found by seed | seeds needed | invariant |")
    _say("|---|---|---|---|")
    for name in bugs:
        finders: list[Outcome] = []
        tried = 0
        for start in range(seeds.start, seeds.stop, at_once):
            some = range(start, min(start + at_once, seeds.stop))
            for outcome in _outcomes(pool, [seed for seed in some if seed not in sound], None):
                sound[outcome.seed] = outcome.violation is None
            some_sound = [seed for seed in some if sound[seed]]
            tried += len(some_sound)
            finders += [each for each in _outcomes(pool, some_sound, name) if each.violation is not None]
            if finders and at_once < len(seeds):
                break
        finders.sort(key=lambda outcome: outcome.seed)
        if not finders:
            _say(f"| {name} | NONE of {tried} | | |")
            continue
        found.append(name)
        first = finders[0].seed
        needed = sum(sound[seed] for seed in range(seeds.start, first + 1))
        invariants = ", ".join(dict.fromkeys(each.violation.name for each in finders if each.violation))
        numbers = ", ".join(str(outcome.seed) for outcome in finders[:8])
        _say(f"| {name} | {numbers} | {needed} | {invariants} |")
    missing = [name for name in bugs if name not in found]
    _say(f"{len(found)} of {len(bugs)} planted bugs were found ({len(found) / len(bugs):.0%})")
    for name in missing:
        _say(f"  not found: {name}")
    return 0 if len(found) >= ENOUGH_TO_FIND * len(bugs) else 1


def _outcomes(pool: ProcessPoolExecutor, seeds: Iterable[int], bug: str | None) -> Iterator[Outcome]:
    for future in as_completed([pool.submit(run, seed, bug) for seed in seeds]):
        yield future.result()


def _tell(outcome: Outcome, bug: str | None = None) -> None:
    _say(f"seed {outcome.seed}: {outcome.violation or 'all invariants hold'}")
    _say(f"  {outcome.events} events, digest {outcome.digest}, {outcome.states}")
    if outcome.violation is not None:
        _say("  the last events:")
        for line in outcome.tail:
            _say(f"    {line}")
        planted_too = f" --bug {bug!r}" if bug else ""
        _say(f"  again: python -m tests.simulation --seed {outcome.seed}{planted_too}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
