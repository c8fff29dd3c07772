"""Print the result of `archiver verify`: each bad copy, and a summary of what was and was not checked."""

from __future__ import annotations

from collections.abc import Sized

from rich.console import Group, RenderableType
from rich.text import Text

from worker.verify import EVERYTHING, Checked, Tally
from worker.views.text import shown, size

COPY_AGAIN = (
    "`archiver archive --again ID` copies an asset again while 100ms still has it, and `archiver replicate` repairs it "
    "from another destination that has it whole. Where none has, and 100ms has deleted it, restore the objects "
    "named above from the bucket's versions, and run `archiver verify ID`."
)


def checked_view(checked: Checked) -> RenderableType:
    """For a copy that is not `ok`, or is cold."""
    if checked.ok:
        when = (
            f"last read on {checked.last_read:%Y-%m-%d}"
            if checked.last_read
            else "not read since it was stored"
        )
        return shown(f"{checked.asset_id} at {checked.destination}: cold, {when}")
    what = "Everything" if checked.asset_id == EVERYTHING else checked.asset_id
    lines = [shown(f"{what} at {checked.destination}:", "bold red")]
    lines += [shown(f"  {problem}") for problem in checked.problems]
    lines += [shown(f"  quarantined, not archived: {doubt}") for doubt in checked.doubts]
    if checked.unchecked is not None:
        lines.append(shown(f"  not checked: {checked.unchecked}"))
    return Group(*lines)


def tally_view(
    tally: Tally, *, named: Sized, quick: bool, stored: Sized | None, ledger_trouble: str | None
) -> RenderableType:
    """`named`: the asset ids given on the command line; empty for all. `stored`: what the ledger calls archived; None
    when it was not asked, or could not be because of `ledger_trouble`."""
    how = "by name and size" if quick else f"by reading {size(tally.read_bytes)} back"
    well = not (tally.bad or tally.unchecked) and tally.copies
    lines = []
    if tally.copies:
        whole = f"{tally.copies - tally.bad} of {tally.copies} copies are whole, checked {how}."
        lines.append(Text(whole, style="bold green" if well else "bold red"))
    if tally.cold:
        lines.append(Text(_cold(tally)))
    if tally.unchecked:
        lines.append(Text(_unchecked(tally), style="bold red"))
    lines.append(_compared(tally, named, stored, ledger_trouble))
    if tally.bad:
        lines.append(Text(COPY_AGAIN))
    if tally.doubted:
        decide = "Check what is stored, then run `archiver accept ID` or `archiver reject ID`."
        lines.append(Text(f"{tally.doubted} of them are stored with doubts. {decide}"))
    return Group(*lines)


def _unchecked(tally: Tally) -> str:
    copies = tally.unchecked - tally.away
    what = [f"{copies} {'copy' if copies == 1 else 'copies'}"] if copies else []
    what += (
        [f"everything at {tally.away} {'destination' if tally.away == 1 else 'destinations'}"]
        if tally.away
        else []
    )
    return f"Not checked: {' and '.join(what)}. It is unknown what is whole there."


def _cold(tally: Tally) -> str:
    if tally.never_read:
        read = f"{tally.never_read} of them were never read back since they were stored"
    else:
        read = f"last read on {tally.coldest_read:%Y-%m-%d} or later"
    return (
        f"{tally.cold} of them are in a cold storage class and were compared by what the store says of them, not read: "
        f"{read}."
    )


def _compared(tally: Tally, named: Sized, stored: Sized | None, trouble: str | None) -> Text:
    if stored is None:
        why = f": {trouble}" if trouble else "."
        style = "yellow" if trouble else ""
        not_compared = shown(f"Not compared with the ledger{why}", style)
        return not_compared.append("\nAssets that are missing altogether were not looked for.", style)
    if tally.missing:
        text = f"Compared with the ledger: {tally.missing} copies that it calls archived have no manifest."
        return Text(text, style="bold red")
    if len(named):
        return Text("Compared with the ledger. Only the named assets were checked.")
    if tally.unchecked and not tally.copies:
        return Text("Not compared with the ledger: nothing could be checked.", style="bold red")
    where = "each destination that could be checked" if tally.unchecked else "each destination"
    return Text(
        f"Compared with the ledger: each of the {len(stored)} assets that it calls archived has a manifest at {where}."
    )
