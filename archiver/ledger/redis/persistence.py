"""Check that a Redis server keeps the ledger across a restart, and all of it when its memory is full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FULL = 0.9
"""Share of `maxmemory` that counts as full: messages and rows come in bursts."""


@dataclass(frozen=True, slots=True)
class Persistence:
    """What the server does with the ledger when it restarts or runs full. None: it does not tell. `losing`: why it may
    lose rows while it runs. `kept`: whether anything outlasts a restart: an append-only file, a snapshot or a
    replica."""

    appendonly: bool | None
    eviction_policy: str | None
    sound: bool | None
    explanation: str
    losing: str | None = None
    kept: bool | None = None


def judge(info: Mapping[str, Any], save: str | None = None) -> Persistence:
    """Judge what INFO answered; empty when the server refused it. `save`: its save points by CONFIG GET; None: it does
    not tell, as managed servers."""
    aof, policy, maxmemory = info.get("aof_enabled"), info.get("maxmemory_policy"), info.get("maxmemory")
    if aof is None or policy is None:
        explanation = (
            "the server does not tell (INFO is refused); ask its provider for 'appendonly yes' and"
            " 'maxmemory-policy noeviction'"
        )
        return Persistence(None, None, None, explanation)

    restart, losing = [], []
    kept = bool(aof) or _has_copy(info, save)
    if kept is False:
        restart.append(
            "it keeps nothing across a restart: no append-only file, save points or replica; set 'appendonly yes'"
        )
    elif not aof:
        restart.append(
            "appendonly is off: after a restart the next sweep and reconcile find again what is due, running and on"
            " hold, and unfinished uploads restart; set 'appendonly yes'"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        losing.append("the append-only file cannot be written: check the server's disk")
    if policy != "noeviction":
        full = "when its memory is full" if maxmemory else "once somebody sets maxmemory"
        (losing if maxmemory else restart).append(
            f"maxmemory-policy is {policy}: {full} it drops ledger rows and messages; set 'noeviction'"
        )
    if evicted := info.get("evicted_keys"):
        losing.append(f"{evicted:,} keys have already been evicted: ledger rows, or messages")
    used = info.get("used_memory", 0)
    if maxmemory and used > FULL * maxmemory:
        losing.append(f"it uses {used / maxmemory:.0%} of maxmemory: raise maxmemory before writes fail")
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        losing.append("rewriting the append-only file fails, so it grows: check the server's disk and memory")
    faults = "; ".join([*restart, *losing])
    return Persistence(
        bool(aof),
        policy,
        not faults,
        faults or "kept on disk, and nothing is evicted",
        "; ".join(losing) or None,
        kept,
    )


def _has_copy(info: Mapping[str, Any], save: str | None) -> bool | None:
    """Return whether there is a replica or a snapshot; None: not known. A snapshot that was made by hand, without
    save points, does not count."""
    if info.get("connected_slaves") or info.get("role") == "slave":
        return True
    if save is not None:
        return bool(save.strip())
    has_saved = info.get("rdb_bgsave_in_progress") or info.get("rdb_last_bgsave_time_sec", -1) >= 0
    return True if has_saved else None
