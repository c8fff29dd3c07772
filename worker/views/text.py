"""Short texts: escaped values, sizes, durations."""

from __future__ import annotations

from datetime import datetime, timedelta

from rich.text import Text

from worker.logs.escaping import escaped


def shown(value: object, style: str = "") -> Text:
    """Text of foreign origin, escaped so that it cannot control the terminal."""
    return Text(escaped(str(value)), style=style)


def size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def span(duration: timedelta) -> str:
    """`3 d 4 h`, `12 min`, `5 s`: two units at most."""
    seconds = int(abs(duration.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"


def time_left(expires_at: datetime, now: datetime) -> str:
    from archiver.core.deadlines import UNDATED  # late: `--help` loads no pydantic

    if expires_at == UNDATED:
        return "unknown (no creation date)"
    return f"in {span(expires_at - now)}" if expires_at > now else f"{span(now - expires_at)} ago"
