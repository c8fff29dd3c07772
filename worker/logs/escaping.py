"""Text that is shown as it is: nothing in it moves the cursor, colours the terminal or begins a new line of a log."""

from __future__ import annotations

import re

_ACTIVE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: escape sequences begin with one of them
    "\u2028\u2029"  # line separators
    "\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c"  # what turns the direction of writing
    "\ud800-\udfff]"  # half a pair: cannot be encoded
)


def escaped(text: str) -> str:
    r"""`text` on one line, with each active character as Python writes it (`\x1b`, `\n`, `\u202e`). Doing it twice
    changes nothing more."""
    return _ACTIVE.sub(_as_written, text)


def _as_written(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
