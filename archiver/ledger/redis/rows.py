"""How an asset's row is written to Redis and read from it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from archiver.ledger.models import Acknowledgement, AssetState, CopyState, Decision, Row, Seen, Settlement
from archiver.ledger.redis.calls import Argument
from archiver.ledger.redis.values import MICROSECOND, from_microseconds, microseconds, to_json

# A row's fields in its hash. Short, for a million rows: one letter costs a megabyte.
_FIELDS = {
    "ty": "type",
    "st": "state",
    "ex": "expires_at",
    "fs": "first_seen_at",
    "ch": "changed_at",
    "cr": "created_at",
    "ro": "room_id",
    "se": "session_id",
    "si": "size_bytes",
    "at": "attempts",
    "mi": "mismatches",
    "fp": "fingerprint",
    "de": "crashes",
    "nx": "next_attempt_at",
    "gs": "gone_since",
    "re": "reason",
    "sb": "stored_bytes",
    "so": "stored_objects",
    "sc": "seconds",
    "wa": "warnings",
    "hi": "history",
    "lu": "leased_until",
    # `copies`: cp, when the state was last set, whether it is counted, and for each destination 5 letters of its digest
    # and one of its state: a value of more than 64 bytes would make the whole hash three times as large
    # `acknowledged`: ak, when the state was last set, when it was acknowledged, and JSON
    # for the scripts alone: fe the fencing token, ho the lease's holder, ca the call that leased or settled it, mo the
    # most that was stored at a crash, zs the sizes the API gave since it was archived, at most MAX_SIZES
}
_TIMES = (
    "expires_at",
    "first_seen_at",
    "changed_at",
    "created_at",
    "next_attempt_at",
    "gone_since",
    "leased_until",
)
_NUMBERS = ("size_bytes", "attempts", "mismatches", "crashes", "stored_bytes", "stored_objects")


NameOf = Callable[[str], str]
"""Return the name of a destination by its digest."""

_LETTERS = {CopyState.WHOLE: "w", CopyState.LACKING: "l", CopyState.DAMAGED: "d"}
_STATES = {letter: state for state, letter in _LETTERS.items()}
_DIGEST = 5  # letters


@cache
def digest_of(destination: str) -> str:
    return base64.b32encode(hashlib.sha256(destination.encode()).digest())[:_DIGEST].decode().lower()


def copies_arguments(copies: Mapping[str, CopyState] | None) -> tuple[Argument, ...]:
    """Return what the scripts' `take_copies` reads."""
    if copies is None:
        return (None,)
    each = ((digest_of(name), name, _LETTERS[state]) for name, state in sorted(copies.items()))
    return (len(copies), *(word for words in each for word in words))


def read_copies(letters: str) -> Iterator[tuple[str, CopyState]]:
    """Yield digests and states; what a newer version may have written is left out."""
    for at in range(0, len(letters), _DIGEST + 1):
        state = _STATES.get(letters[at + _DIGEST : at + _DIGEST + 1])
        if state is not None:
            yield letters[at : at + _DIGEST], state


def decision_text(decision: Decision) -> str:
    """Write a decision as one line, as the script `note_decision` adds it to `history`."""
    return to_json([decision.what, decision.by, decision.why, microseconds(decision.at)])


def _history(lines: str) -> tuple[Decision, ...]:
    decisions = (json.loads(line) for line in lines.splitlines())
    return tuple(Decision(what, by, why, from_microseconds(at)) for what, by, why, at in decisions)


_READ: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(_TIMES, from_microseconds),
    **dict.fromkeys(_NUMBERS, int),
    "state": AssetState,
    "seconds": float,
    "warnings": lambda text: tuple(json.loads(text)),
    "history": _history,
}


_READERS = {short: (name, _READ.get(name, str)) for short, name in _FIELDS.items()}


def seen_arguments(seen: Seen) -> tuple[Argument, ...]:
    """Return what the scripts' `take_seen` reads."""
    return (
        seen.asset_id,
        seen.type,
        microseconds(seen.expires_at),
        seen.verdict,
        None if seen.created_at is None else microseconds(seen.created_at),
        seen.room_id,
        seen.session_id,
        seen.size_bytes,
        seen.reason,
    )


def settlement_arguments(settlement: Settlement) -> tuple[Argument, ...]:
    """Return what the scripts' `take_settlement` reads."""
    return (
        settlement.state,
        settlement.reason,
        None if settlement.delay is None else settlement.delay // MICROSECOND,
        int(settlement.counts_as_attempt),
        int(settlement.mismatch),
        settlement.fingerprint,
        int(settlement.gone),
        settlement.stored_bytes or None,
        settlement.stored_objects or None,
        settlement.seconds or None,
        to_json(settlement.warnings) if settlement.warnings else None,
        *copies_arguments(settlement.copies),
    )


def read_row(flat: Sequence[str], name_of: NameOf) -> Row:
    """Read a script's answer: the asset id, then alternating fields and values."""
    return row_from_hash(flat[0], dict(zip(flat[1::2], flat[2::2], strict=True)), name_of)


def row_from_hash(asset_id: str, fields: Mapping[str, str], name_of: NameOf) -> Row:
    values: dict[str, Any] = {}
    for short, text in fields.items():
        if (known := _READERS.get(short)) is not None:
            name, read = known
            values[name] = read(text)
    return Row(
        asset_id=asset_id,
        acknowledged=_acknowledgement(fields),
        copies=_copies(fields, name_of),
        **values,
    )


def _copies(fields: Mapping[str, str], name_of: NameOf) -> Mapping[str, CopyState]:
    """Read them only if they are of the current state, as `_acknowledgement` does."""
    changed, _, text = fields.get("cp", "").partition("|")
    if not changed or changed != fields.get("ch"):
        return {}
    return {name_of(digest): state for digest, state in read_copies(text[1:])}


def _acknowledgement(fields: Mapping[str, str]) -> Acknowledgement | None:
    """Read it only if it is of the current state: a worker of an older version leaves the field in place."""
    changed, _, rest = fields.get("ak", "").partition("|")
    if not changed or changed != fields.get("ch"):
        return None
    at, _, text = rest.partition("|")
    saved = json.loads(text)
    return Acknowledgement(saved["by"], saved["why"], from_microseconds(at))
