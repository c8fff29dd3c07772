"""What the account says of an asset of which a copy is damaged and that 100ms may not have any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from archiver.ledger.models import AssetState, Settlement

PROBLEMS_NAMED = (
    3  # of each copy, for a person's eye; the manifest keeps more, and `archiver verify` finds all
)


def damaged(
    asset_id: str,
    copies: Mapping[str, Sequence[str]],
    *,
    stored_bytes: int,
    stored_objects: int,
    note: str = "",
) -> Settlement:
    """Neither saved nor lost: a person can restore it. `copies`: what is wrong with the one at each destination;
    nothing where it is whole."""
    whole = [name for name, problems in copies.items() if not problems]
    said = [f"not whole at {name}: {_some(problems)}" for name, problems in copies.items() if problems]
    said.append(f"whole at {', '.join(whole) or 'no destination'}")
    if note:
        said.append(note)
    said.append(f"restore what is damaged, then `archiver verify {asset_id}`")
    return Settlement(
        AssetState.DAMAGED,
        reason="; ".join(said),
        stored_bytes=stored_bytes,
        stored_objects=stored_objects,
    )


def _some(problems: Sequence[str]) -> str:
    more = len(problems) - PROBLEMS_NAMED
    return ", ".join(problems[:PROBLEMS_NAMED]) + (f", and {more} more" if more > 0 else "")
