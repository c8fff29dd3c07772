"""Checks of the processes: control worker, archive worker, beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.upkeep.status import RAN_ONCE_FACT, WATCH_FACT
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from tasks.watch import beats
from worker.celery_setup.processes import ARCHIVE_NODE, CONTROL_NODE
from worker.doctor.check_result import CheckResult, Verdict
from worker.views.text import span

HEARD_WITHIN = timedelta(minutes=2)
"""Beat sends a watch every minute."""
NOT_FOR_CRON = "Not needed where cron calls `archiver run --once`."


def check_processes(
    ledger: Facts, workers: Callable[[], list[str]], *, has_broker: bool
) -> Iterator[CheckResult]:
    """`workers` returns the names of the workers that answer a ping. `has_broker`: ARCHIVER_REDIS_URL is set, as an
    installation with workers needs it."""
    names = workers()
    missing = Verdict.PROBLEM if names or _should_run(ledger, has_broker) else Verdict.WARNING
    control = [name for name in names if name.startswith(f"{CONTROL_NODE}@")]
    archive = [name for name in names if name.startswith(f"{ARCHIVE_NODE}@")]
    others = [name for name in names if name not in control + archive]  # own node names: may be either
    for subject, found, service, effect in (
        ("control worker", control or others, "control", "no sweep, dispatch or watch runs"),
        ("archive worker", archive or others, "worker", "nothing is copied"),
    ):
        if found:
            yield CheckResult(subject, Verdict.OK, ", ".join(found))
        else:
            yield CheckResult(
                subject,
                missing,
                f"none answers over the broker: {effect}",
                f"Start it: `archiver up`, or `docker compose up -d {service}`. {NOT_FOR_CRON}",
            )
    yield _check_beat(ledger, missing, control_answers=bool(control or others))


def _should_run(ledger: Facts, has_broker: bool) -> bool:
    """Return whether this installation runs workers and beat rather than cron."""
    watched, ran_once = (ledger.recall(fact) or {} for fact in (WATCH_FACT, RAN_ONCE_FACT))
    watched_at, ran_once_at = parse_time(watched.get("at")), parse_time(ran_once.get("at"))
    if ran_once_at is not None and (watched_at is None or watched_at < ran_once_at):
        return False
    return has_broker or watched_at is not None


def _check_beat(ledger: Facts, missing: Verdict, *, control_answers: bool) -> CheckResult:
    """Beat answers no ping. It is known by the last watch that the control worker ran for it."""
    subject = "beat"
    found, noted = beats(ledger), ledger.recall(WATCH_FACT) or {}
    heard_at = parse_time(noted.get("at"))
    silence = ledger.now() - heard_at if heard_at is not None else None
    if not control_answers:
        return CheckResult(
            subject,
            missing,
            "unknown: the control worker, which receives beat's messages, does not answer",
            f"Start the control worker first. {NOT_FOR_CRON}",
        )
    if silence is not None and silence < -CLOCK_TOLERANCE:
        return CheckResult(
            subject,
            Verdict.PROBLEM,
            f"its last message is dated {span(silence)} in the future: the clock of the ledger's server was set back",
            "Correct that clock and keep NTP on.",
        )
    if not found or silence is None or silence > HEARD_WITHIN:
        since = f"for {span(silence)}" if silence is not None else "yet"
        return CheckResult(
            subject,
            missing,
            f"no message from it {since}: it does not run, or the control worker is stuck; no new asset is found",
            "Start it: `archiver up`, or `docker compose up -d beat`. If it runs, restart the control worker. "
            f"{NOT_FOR_CRON}",
        )
    if len(found) > 1:
        return CheckResult(
            subject,
            Verdict.WARNING,
            f"{len(found)} sent messages in the last minutes: {', '.join(found)}. Each task is sent {len(found)} "
            "times, which wastes work but breaks nothing",
            "Keep one. After a restart of beat this is expected for 3 minutes.",
        )
    return CheckResult(subject, Verdict.OK, f"one runs: {found[0]}, last message {span(silence)} ago")
