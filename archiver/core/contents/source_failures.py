"""Describe a source's failure for a doubt, in the same words at every attempt that finds the same.

Hosts and signed paths change between attempts, so no address is included.
"""

from __future__ import annotations

import re

from archiver.transfer.errors import (
    ErrorPage,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceNotAllowed,
    SourceUnavailable,
    StillEncoded,
    UnexpectedContent,
)

_ADDRESS = re.compile(r"https?://[^\s,;]+(?<![:.])", re.IGNORECASE)

BUSY = "the source does not answer for it now"


def in_words(error: SourceError) -> str:
    match error:
        case SourceGone():
            return "it is missing at the source (404 or 410)"
        case SourceForbidden():
            return "the source refuses it (401 or 403)"
        case ErrorPage():
            return "the source answers with an error page"
        case SourceNotAllowed():
            return "its address is refused by the address policy"
        case StillEncoded():
            return f"it {error.what}"
        case UnexpectedContent():
            return str(error)
        case SourceUnavailable():
            return BUSY
        case SourceChanged():
            return "it changes while it is read"
        case _:
            return f"it cannot be read: {_ADDRESS.sub('it', str(error))}"
