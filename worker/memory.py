"""Memory of a worker process: the share for buffers, the garbage collector, malloc."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path

from archiver.transfer.allowance import Allowance
from archiver.transfer.memory import REUSED_BYTES, MemoryBudget

PROCESS_BYTES = 120 * 2**20
"""What a worker process takes at least beside its buffers: code and libraries (109 MiB measured), connections."""

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def buffer_bytes(process_bytes: int) -> int:
    """The share of a worker process's memory budget that buffers may use: all but PROCESS_BYTES, at least a third."""
    return max(process_bytes - PROCESS_BYTES, process_bytes // 3)


def memory_budget(process_bytes: int) -> MemoryBudget:
    """Make the budget for the buffers of a worker process that is to stay within `process_bytes`.

    Where the system tells what the process takes (Linux), buffers may use what is left, at least a third; elsewhere all
    but PROCESS_BYTES."""
    most_bytes = buffer_bytes(process_bytes)
    allowance = Allowance(
        process_bytes,
        most_bytes=most_bytes,
        least_bytes=process_bytes // 3,
        resident_bytes=resident_bytes,
        give_back=give_back,
    )
    return MemoryBudget(most_bytes, allowance=allowance)


def resident_bytes() -> int | None:
    """Return the resident set of this process; None where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


def give_back() -> None:
    """Return freed memory to the system, which malloc keeps. Does nothing with another C library."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def tune_garbage_collector() -> None:
    """Run the garbage collector less often: it took 8 % of the CPU of a large tree. Freezes what exists now; a copy
    creates almost no cycles. Idempotent."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def tune_malloc() -> None:
    """Make glibc return large buffers at once and share its arenas among threads. By default it keeps what each thread
    ever used: 283 MiB instead of 234 for a GiB over 16 connections. Does nothing with another C library. Idempotent."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, REUSED_BYTES)  # smaller ones come and go too often
        # or the memory of each small object would be requested from the system again
        mallopt(_M_TRIM_THRESHOLD, 8 * 2**20)
        mallopt(_M_ARENA_MAX, 2)
