"""What a long command tells of its progress."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console
from rich.text import Text

from worker.cli import progress
from worker.cli.progress import Work, progress_shown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def work_after(seconds: float, clock: Clock, *told: tuple[str, int, int | None], size_bytes: int = 0) -> Work:
    work = Work(clock)
    for each in told:
        work(*each, size_bytes=size_bytes)
    clock.now += seconds
    return work


@pytest.mark.parametrize(
    ("done", "total", "size_bytes", "line"),
    [
        (120, 1000, 0, "reading back: 120 of 1,000, 2.0/s, 7 min left"),
        (120, 1000, 60 * 2**20, "reading back: 120 of 1,000, 1.0 MiB/s, 7 min left"),
        (1200, None, 0, "reading back: 1,200, 20.0/s"),
        (0, 10, 0, "reading back: 0 of 10"),
        (10, 10, 0, "reading back: 10 of 10, 0.2/s, 0 s left"),
        (11, 10, 0, "reading back: 11 of 10, 0.2/s"),
    ],
)
def test_a_line_has_phase_amount_rate_and_time_left(
    done: int, total: int | None, size_bytes: int, line: str
) -> None:
    assert work_after(60, Clock(), ("reading back", done, total), size_bytes=size_bytes).line() == line


def test_before_anything_is_told_it_is_starting() -> None:
    assert Work(Clock()).line() == "starting: 0"


def test_a_new_phase_is_timed_on_its_own() -> None:
    clock = Clock()
    work = work_after(1000, clock, ("listing", 5, None))
    work("reading back", 0, 100)
    clock.now += 10
    work("reading back", 10, 100)

    assert work.line() == "reading back: 10 of 100, 1.0/s, 1 min left"


def test_without_a_terminal_a_line_is_printed_each_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.001)
    refreshed = threading.Event()

    def refresh(work: Work) -> None:
        work("copying \x1b[2J", 3)
        if "copying" in capsys.readouterr().err:
            refreshed.set()

    with progress_shown(refresh=refresh):
        assert refreshed.wait(30), "it was printed, and asked again"


def test_a_terminal_has_a_bar_with_phase_amount_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "err", console)
    looked = threading.Semaphore(0)

    def refresh(work: Work) -> None:
        work("reading back [red]", 3, 10, size_bytes=2**30)
        looked.release()

    with progress_shown(refresh=refresh):
        for _ in range(3):
            assert looked.acquire(timeout=30)

    text = Text.from_ansi(shown.getvalue()).plain
    assert "reading back [red]" in text
    assert " 3/10 " in text
    assert "iB/s" in text


def test_a_short_command_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown() as work:
        work("reading back", 1, 2)

    assert capsys.readouterr().err == ""
