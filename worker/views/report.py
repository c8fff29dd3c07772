"""The report of `archiver verify --report` as one HTML page without scripts, for a person to read and print."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from worker.report import Copy, Line, Report
from worker.views.text import size

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1500px;padding:0 1rem;color:#1b1f24}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin-top:2rem}
.verdict{padding:.8rem 1rem;border-radius:6px;font-weight:600}
.ok{background:#e3f5e6;color:#0a5c22}.bad{background:#fde7e7;color:#8f1414}
table{border-collapse:collapse;width:100%;margin:.6rem 0} caption{text-align:left;color:#57606a;padding:.2rem 0}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
th{background:#f3f5f7;position:sticky;top:0} td.n{text-align:right;font-variant-numeric:tabular-nums}
code{font:12px ui-monospace,monospace;overflow-wrap:anywhere} tr.bad td:first-child{border-left:4px solid #c62828}
.narrow{width:auto} .muted{color:#57606a}
@media print{body{margin:0;max-width:none;font-size:10px}th{position:static}}
"""


def report_page(report: Report) -> Iterator[str]:
    """Yield the page in pieces: a million assets make a long one."""
    problems = {id(line): what for line, what in report.problems}
    since, until = _day(report.period.since, "the beginning"), _day(report.period.until, "now")
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Archive report, {since} to {until}</title><style>{_STYLE}</style></head><body>"
        f'<h1>Archive report</h1><p class="muted">Assets created from {since} to {until} (UTC). Made on '
        f"{_time(report.made_at)} by archiver {escape(report.version)}{_unfinished(report)}.</p>"
    )
    yield _verdict(report, len(problems))
    yield '<h2>Assets by state</h2><table class="narrow"><thead><tr><th>state<th>assets</thead><tbody>'
    for state, count in sorted(report.states.items()):
        yield f'<tr><td>{escape(state)}<td class="n">{count:,}'
    yield f'<tr><td><b>all</b><td class="n"><b>{len(report.lines):,}</b></tbody></table>'
    if problems:
        yield "<h2>Problems</h2><table><thead><tr><th>asset<th>type<th>state<th>problem<th>reason</thead><tbody>"
        for line in report.lines:
            if id(line) in problems:
                yield (
                    f'<tr class="bad"><td><code>{escape(line.asset_id)}</code><td>{escape(line.type)}'
                    f"<td>{escape(line.state)}<td>{escape(problems[id(line)])}<td>{escape(line.reason or '')}"
                )
        yield "</tbody></table>"
    yield (
        "<h2>Every asset</h2><table><caption>SHA-256 is that of the manifest, which lists every object with its size "
        "and CRC32C. A drill restores a copy as a test.</caption><thead><tr><th>asset<th>type<th>created<th>state"
        "<th>destination<th>copy<th>objects<th>size<th>last full read<th>last drill<th>manifest, SHA-256</thead><tbody>"
    )
    for line in report.lines:
        yield from _rows(line, bad=id(line) in problems)
    yield "</tbody></table></body></html>\n"


def _unfinished(report: Report) -> str:
    until = report.period.until
    return "" if until is None or until <= report.made_at else ", before the period was over"


def _verdict(report: Report, problems: int) -> str:
    how = "their names and sizes were compared" if report.quick else "every byte was read back"
    if report.ok:
        text = (
            f"Complete: {len(report.lines):,} assets, compared with the ledger and with every destination. Each "
            f"archived one is whole at each destination ({how}); the others have ended as the table says."
        )
        return f'<p class="verdict ok">{escape(text)}</p>' + _where(report)
    parts = []
    if problems:
        parts.append(f"{problems:,} of {len(report.lines):,} assets have a problem.")
    parts += [f"It is not known whether this is complete: {why}." for why in report.unknown]
    return f'<p class="verdict bad">{escape(" ".join(parts))}</p>' + _where(report)


def _where(report: Report) -> str:
    names = "".join(f"<li><code>{escape(name)}</code>" for name in report.destinations)
    return f"<p>Destinations:</p><ul>{names}</ul>"


def _rows(line: Line, *, bad: bool) -> Iterator[str]:
    copies: list[Copy | None] = [*line.copies] or [None]
    span = f' rowspan="{len(copies)}"' if len(copies) > 1 else ""
    for number, copy in enumerate(copies):
        yield '<tr class="bad">' if bad else "<tr>"
        if number == 0:
            yield (
                f"<td{span}><code>{escape(line.asset_id)}</code><td{span}>{escape(line.type)}"
                f"<td{span}>{_time(line.created_at)}<td{span}>{escape(line.state)}"
            )
        if copy is None:
            yield '<td colspan="7" class="muted">no copy'
            continue
        drill = (
            f"{_time(copy.last_drill)} ({escape(copy.drill_result or '')})" if copy.last_drill else "never"
        )
        yield (
            f"<td><code>{escape(copy.destination)}</code><td>{escape(copy.result)}"
            + (f'<br><span class="muted">{escape(copy.why)}</span>' if copy.why else "")
            + f'<td class="n">{copy.objects:,}<td class="n">{size(copy.size_bytes)}'
            f"<td>{_time(copy.last_full_read) or 'never'}<td>{drill}"
            f"<td><code>{escape(copy.manifest_sha256 or '')}</code>"
        )


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment is not None else ""


def _day(moment: datetime | None, otherwise: str) -> str:
    return _time(moment).removesuffix(" 00:00") or otherwise
