"""What the engine is to reach against its peers, and whether the runs of one benchmark do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.report import OURS, Row, Run, rows


class Measure(StrEnum):
    """Of a client's median after imports, ours divided by the other's."""

    RATE = "objects/s"
    CPU = "CPU an object"
    WALL = "wall"


@dataclass(frozen=True, slots=True)
class Target:
    """`other` is a client on the same sink, or ours on `other_sink`."""

    job: str
    setting: str
    measure: Measure
    bound: float
    other: str
    sink: str = "s3"
    other_sink: str = "s3"

    @property
    def at_least(self) -> bool:
        return self.measure is Measure.RATE

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True, slots=True)
class Outcome:
    """`ratio`: None when one of the two did not run."""

    target: Target
    ratio: float | None


def _against(job: str, setting: str, bounds: str) -> tuple[Target, ...]:
    """Targets as `rclone objects/s 1.75; obstore wall 1.05`."""
    found = []
    for bound in bounds.split(";"):
        other, *measure, value = bound.split()
        found.append(Target(job, setting, Measure(" ".join(measure)), float(value), other))
    return tuple(found)


_LARGE_LIFE = "obstore wall 1.05; rclone wall 0.75; obstore CPU an object 1.0; rclone CPU an object 0.6"

TARGETS: tuple[Target, ...] = (
    *_against(
        "C",
        "life tls",
        "rclone objects/s 1.75; obstore objects/s 1.6; rclone CPU an object 0.65; obstore CPU an object 0.65",
    ),
    *_against("C", "raw tls", "rclone objects/s 1.0; rclone CPU an object 0.9"),
    *_against("A1", "life tls", _LARGE_LIFE),
    *_against("A", "life tls", _LARGE_LIFE),
    *_against(
        "A1",
        "raw tls",
        "obstore wall 1.2; obstore CPU an object 1.25; rclone CPU an object 0.75",
    ),
    *_against("D", "life tls", "rclone objects/s 1.9; obstore objects/s 1.35"),
    *_against("C", "raw", "rclone objects/s 1.3"),
    *(
        Target("C", setting, Measure.RATE, 0.85, OURS, sink="gcs")
        for setting in ("life tls", "raw tls", "life", "raw")
    ),
)


_VALUE: dict[Measure, Callable[[Row], float]] = {
    Measure.RATE: lambda row: row.objects_per_second,
    Measure.CPU: lambda row: row.cpu_seconds_per_object,
    Measure.WALL: lambda row: row.wall_seconds,
}


def outcomes(runs: Sequence[Run], targets: Sequence[Target] = TARGETS) -> Iterator[Outcome]:
    """Each target of a job and setting that ran."""
    ran = {(run.job, run.setting) for run in runs}
    for target in targets:
        if (target.job, target.setting) not in ran:
            continue
        medians = {(row.client, row.sink): row for row in rows(runs, target.job, target.setting)}
        ours, other = medians.get((OURS, target.sink)), medians.get((target.other, target.other_sink))
        value = _VALUE[target.measure]
        yield Outcome(target, value(ours) / value(other) if ours and other else None)


def table(found: Sequence[Outcome]) -> str:
    """The outcomes as text, a line each."""
    lines = [f"{'job':3} {'setting':9} {'sink':4} {'ours divided by':31} {'target':>7} {'measured':>8}"]
    for outcome in found:
        target = outcome.target
        other = f"{target.other} on {target.other_sink}" if target.other == OURS else target.other
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:.2f}"
        measured = "-" if outcome.ratio is None else f"{outcome.ratio:.3f}"
        verdict = "did not run" if outcome.ratio is None else "met" if target.met(outcome.ratio) else "MISSED"
        compared = f"{other}, {target.measure}"
        lines.append(
            f"{target.job:3} {target.setting:9} {target.sink:4} {compared:31} {bound:>7} {measured:>8}  {verdict}"
        )
    return "\n".join(lines)
