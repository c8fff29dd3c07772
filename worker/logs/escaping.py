"""Escape control characters, so that text cannot control the terminal or forge a log line."""

from __future__ import annotations

import re

_ACTIVE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: escape sequences begin with one of them
    "\u2028\u2029"  # line separators
    "\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c"  # bidirectional controls
    "\ud800-\udfff]"  # lone surrogates: cannot be encoded
)


def escaped(text: str) -> str:
    r"""`text` on one line, with control characters written as in Python (`\x1b`, `\n`, `\u202e`). Idempotent."""
    return _ACTIVE.sub(_as_written, text)


def _as_written(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
