"""The buffers of a worker process, as the product makes their budget."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from worker import memory
from worker.memory import give_back, memory_budget, resident_bytes

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_process_is_measured_as_the_system_shows_it() -> None:
    shown = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert shown is not None

    assert resident_bytes() == pytest.approx(int(shown[1]) * 1024, rel=0.05)


@pytest.mark.parametrize("statm", [None, "", "12", "some words here"])
def test_where_the_system_does_not_tell_the_measure_is_unknown(
    statm: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "statm"
    if statm is not None:
        path.write_text(statm)
    monkeypatch.setattr(memory, "_STATM", path)

    assert resident_bytes() is None


@pytest.mark.parametrize(
    ("resident_mib", "granted_mib"),
    [(None, 136), (100, 117), (112, 105), (200, 85)],
    ids=["unknown", "a small process", "a usual one", "a large one"],
)
def test_buffers_get_what_the_process_leaves(
    resident_mib: int | None, granted_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = None if resident_mib is None else resident_mib * MIB
    monkeypatch.setattr(memory, "resident_bytes", lambda: measured)
    budget = memory_budget(256 * MIB)
    assert budget.try_reserve(2 * MIB) is not None  # which measures the process

    assert budget.try_reserve((granted_mib - 1) * MIB) is None
    assert budget.try_reserve((granted_mib - 3) * MIB) is not None


def test_giving_back_what_malloc_keeps_is_harmless_at_any_time() -> None:
    give_back()
    give_back()
