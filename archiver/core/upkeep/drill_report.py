"""The report of the drill: a fact in the ledger, and what `status` says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from archiver.core.health_rules import Finding, finding
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts

DRILL_FACT = "drill"
NAMED = 20
DOES_NOT_PLAY = "does not play"
LATE_BY = timedelta(days=2)
"""Beyond the interval, after which a drill that has not ended is late."""
GIB = 2**30
ALL_PASSED_OVER = (
    "every copy that was looked at is cold, or larger than the scratch folder takes: ARCHIVER_DRILL_BYTES, "
    "ARCHIVER_DRILL_DIR"
)


@dataclass(frozen=True, slots=True)
class DrillReport:
    """One run over all destinations, in copies. `failed`: a sentence for each copy that was not whole or does not play;
    `not_decoded`: media that were compared and not decoded, because of `undecoded_for`; `passed_over`: cold or larger
    than the scratch folder. `errors`: destinations or folders that could not be used."""

    copies: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    decoded: int = 0
    not_decoded: int = 0
    undecoded_for: str = ""
    passed_over: int = 0
    failed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failed and not self.errors and self.tried

    @property
    def tried(self) -> bool:
        """Return whether a copy was restored, or there was none: otherwise nothing is known."""
        return self.copies > 0 or not (self.errors or self.passed_over)


def expect_drill(ledger: Facts, now: datetime, every: timedelta | None) -> None:
    """Start the time after which a missing drill is a problem, unless it has started. `every`: None when the drill is
    off: then none is expected. Raises LedgerError."""
    if every is None:
        ledger.forget(DRILL_FACT)
    elif ledger.recall(DRILL_FACT) is None:
        ledger.remember(DRILL_FACT, {"since": now.isoformat(), "every_days": every / timedelta(days=1)})


def record_drill(ledger: Facts, report: DrillReport, every: timedelta | None, now: datetime) -> None:
    """Replace the last report. A run that could restore nothing leaves the last one, with the reason. Raises
    LedgerError."""
    before = ledger.recall(DRILL_FACT) or {}
    fact: dict[str, object] = {
        **{
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(report).items()
        },
        "failed": list(report.failed[:NAMED]),
        "failures": len(report.failed),
        "since": before.get("since") or now.isoformat(),
        "every_days": every / timedelta(days=1) if every else before.get("every_days"),
    }
    if report.tried:
        fact["at"] = now.isoformat()
    else:
        fact["errors"] = list(report.errors) or [ALL_PASSED_OVER]
        if "at" in before:
            fact = {**before, "errors": fact["errors"]}
    ledger.remember(DRILL_FACT, fact)


def drilled_at(fact: Mapping[str, object] | None) -> datetime | None:
    """Return when the last drill ended; None: never."""
    return parse_time((fact or {}).get("at"))


def seconds_per_gib(fact: Mapping[str, object] | None) -> float | None:
    """Return how long the last drill took for each GiB, with decoding; None when it restored less than a MiB."""
    size, seconds = (_number((fact or {}).get(name)) for name in ("size_bytes", "seconds"))
    return seconds / size * GIB if size >= 2**20 else None


def failures(fact: Mapping[str, object] | None) -> int:
    return int(_number((fact or {}).get("failures")))


def drill_findings(fact: Mapping[str, object] | None, now: datetime) -> Iterator[Finding]:
    """Without a fact no drill is expected (`expect_drill`)."""
    if fact is None:
        return
    failed = [str(each) for each in _list(fact.get("failed"))]
    if number := failures(fact):
        more = f" and {number - 1:,} more" if number > 1 else ""
        yield finding(
            "drill_failed",
            f"The last drill could not restore {failed[0] if failed else 'a copy'}{more}. {_advice(failed)}",
            level=number,
        )
    at, every = drilled_at(fact), _number(fact.get("every_days"))
    last = at or parse_time(fact.get("since"))
    errors = [str(each) for each in _list(fact.get("errors"))]
    if every and last is not None and now - last > timedelta(days=every) + LATE_BY:
        why = f": {errors[0]}" if errors else ""
        yield finding(
            "drill_is_late",
            f"No drill has ended for {_shown(now - last)}; it is due each {every:g} days{why}.",
        )
    if at is not None:
        yield finding("drilled", _note(fact, now - at))


def _advice(failed: Sequence[str]) -> str:
    """What helps with the first of them: `archiver verify` calls a copy whole that only does not play."""
    if failed and f": {DOES_NOT_PLAY}: " in failed[0]:
        return (
            "Its checksums are right: `archiver restore ID DIR` and open it. While 100ms has it: "
            "`archiver archive --again ID`; else ask 100ms."
        )
    return "`archiver show ID`, then `archiver verify ID`."


def _note(fact: Mapping[str, object], ago: timedelta) -> str:
    copies = int(_number(fact.get("copies")))
    parts = [
        f"Last drill {_shown(ago)} ago: {copies:,} {'copy' if copies == 1 else 'copies'} restored and compared"
    ]
    if (rate := seconds_per_gib(fact)) is not None:
        parts.append(f"{rate / 60:,.1f} minutes a GiB")
    if decoded := int(_number(fact.get("decoded"))):
        parts.append(f"{decoded:,} decoded")
    if not_decoded := int(_number(fact.get("not_decoded"))):
        parts.append(f"{not_decoded:,} {fact.get('undecoded_for') or 'not decoded'}")
    if passed_over := int(_number(fact.get("passed_over"))):
        parts.append(f"{passed_over:,} passed over (cold, or larger than the scratch folder)")
    return f"{', '.join(parts)}."


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _shown(duration: timedelta) -> str:
    days = duration / timedelta(days=1)
    if days >= 2:
        return f"{days:.0f} days"
    minutes = round(max(duration, timedelta()) / timedelta(minutes=1))
    number, unit = (minutes, "minute") if minutes < 60 else (round(minutes / 60), "hour")
    return f"{number} {unit}{'' if number == 1 else 's'}"
