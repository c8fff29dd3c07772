"""What a benchmark says of its runs: medians after imports, ours divided by the others, targets met or missed."""

from __future__ import annotations

import pytest

from benchmarks.measure import Usage
from benchmarks.report import Run, line, summary
from benchmarks.targets import TARGETS, Measure, Target, outcomes, table


def run(
    client: str, wall: float, cpu: float, sink: str = "s3", imports: float = 0.0, setting: str = "raw"
) -> Run:
    return Run(
        job="C",
        title="a tree",
        setting=setting,
        sink=sink,
        client=client,
        repeat=0,
        size_bytes=2**20,
        objects=100,
        usage=Usage(wall + imports, cpu + imports, 50.0, imports, imports),
        requests={},
    )


RUNS = [
    *(run("ours", wall, 1.0, imports=0.8) for wall in (2.0, 9.0, 1.0)),
    *(run("ours", 2.5, 1.5, "gcs", imports=0.7) for _ in range(3)),
    *(run("rclone", wall, 2.0) for wall in (3.0, 4.0, 5.0)),
]


@pytest.mark.parametrize(
    ("target", "ratio", "met"),
    [
        (Target("C", "raw", Measure.RATE, 2.0, "rclone"), 2.0, True),
        (Target("C", "raw", Measure.RATE, 2.1, "rclone"), 2.0, False),
        (Target("C", "raw", Measure.WALL, 0.5, "rclone"), 0.5, True),
        (Target("C", "raw", Measure.WALL, 0.4, "rclone"), 0.5, False),
        (Target("C", "raw", Measure.CPU, 0.5, "rclone"), 0.5, True),
        (Target("C", "raw", Measure.CPU, 0.4, "rclone"), 0.5, False),
        (Target("C", "raw", Measure.RATE, 0.85, "ours", sink="gcs"), 0.8, False),
        (Target("C", "raw", Measure.RATE, 0.75, "ours", sink="gcs"), 0.8, True),
    ],
)
def test_a_target_is_compared_with_medians_after_imports(target: Target, ratio: float, met: bool) -> None:
    (outcome,) = outcomes(RUNS, [target])

    assert outcome.ratio == pytest.approx(ratio)
    assert target.met(outcome.ratio or 0) is met
    assert table([outcome]).endswith("met" if met else "MISSED")


def test_a_target_whose_client_did_not_run_is_not_met() -> None:
    (outcome,) = outcomes(RUNS, [Target("C", "raw", Measure.RATE, 1.0, "obstore")])

    assert outcome.ratio is None
    assert table([outcome]).endswith("did not run")


def test_targets_of_other_jobs_and_settings_are_left_out() -> None:
    assert not list(outcomes(RUNS, [Target("D", "raw", Measure.RATE, 1.0, "rclone")]))
    assert not list(outcomes(RUNS, [Target("C", "life", Measure.RATE, 1.0, "rclone")]))


def test_every_target_names_what_can_run() -> None:
    every = [run("ours", 1, 1, setting=target.setting) for target in TARGETS]

    assert {outcome.target for outcome in outcomes(every)} == {
        target for target in TARGETS if target.job == "C"
    }


def test_a_line_tells_the_seconds_after_imports_and_of_the_whole_process() -> None:
    reported = line(run("ours", 2.0, 1.0, imports=0.8))

    assert "2.00 s    1.00 CPU-s (whole    2.80 s    1.80 CPU-s)" in reported
    assert reported.endswith(" 50.0 objects/s")


def test_the_summary_compares_ours_with_each_peer_and_the_two_sinks() -> None:
    reported = summary(RUNS, "C", "raw").splitlines()

    (rclone,) = [one for one in reported if one.startswith("  rclone")]
    (between,) = [one for one in reported if "ours to gcs" in one]
    (ours,) = [one for one in reported if one.startswith("  ours ") and "(2.80 s 1.80 CPU-s)" in one]
    assert rclone.endswith("objects/s × 2.00, CPU an object × 0.50, wall × 0.50")
    assert between.endswith("objects/s × 0.80, CPU an object × 1.50, wall × 1.25")
    assert "10.000 ms CPU an object" in ours
    assert ours.endswith("n=3")
