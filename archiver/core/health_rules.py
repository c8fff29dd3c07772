"""The conditions that `status` reports: severity, meaning and what to do. `core.health` decides which of them hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Severity(StrEnum):
    CRITICAL = "critical"  # assets are lost or may be, or whether they are safe is not known
    WARNING = "warning"  # a person must act, and no asset is in danger yet
    INFO = "info"  # worth knowing; nothing to do


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that `status` reports. `id` is `problems[].code` in JSON, the event in the logs and the row in
    docs/operations.md."""

    id: str
    severity: Severity
    meaning: str
    action: str
    alert_after: timedelta = timedelta(0)  # how long it must last before an alert tells of it


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that fires, and the sentence for people: to which asset, destination or process it applies. `cause`: which
    of several it is, such as a destination; it holds no secret. `level` grows as it gets worse, so that it is told
    again."""

    rule: Rule
    text: str
    cause: str = ""
    level: int = 0

    @property
    def id(self) -> str:
        return self.rule.id

    @property
    def is_problem(self) -> bool:
        return self.rule.severity is not Severity.INFO


_RULES = (
    Rule(
        "ledger_out_of_balance",
        Severity.CRITICAL,
        "An asset is counted in no state, or in two.",
        "Report it with the logs: it is a defect. `FLUSHALL` on the ledger's Redis is safe; it is rebuilt.",
    ),
    Rule(
        "at_risk",
        Severity.CRITICAL,
        "Assets are not saved, and 100ms deletes them soon.",
        "Read the reason: `archiver show ID`.",
    ),
    Rule(
        "will_miss_deadline",
        Severity.CRITICAL,
        "At the rate measured in the last two weeks some assets will not be saved in time.",
        "Add workers or slots (ARCHIVER_WORKER_CONCURRENCY), or fix what slows them: `archiver doctor`.",
    ),
    Rule(
        "lost",
        Severity.CRITICAL,
        "100ms deleted the asset before it was saved.",
        "Ask 100ms support at once. If they restore it: `archiver archive ID`; else `archiver ack ID --why ...`.",
    ),
    Rule(
        "damaged",
        Severity.CRITICAL,
        "A copy is no longer whole, and 100ms has deleted the source.",
        "Nothing if `archiver show ID` names a whole copy: it is repaired from that within the hour. Else restore the "
        "objects, then `archiver verify ID`.",
    ),
    Rule(
        "needs_source_access",
        Severity.CRITICAL,
        "Our credentials cannot read the bucket that 100ms recorded into.",
        "Grant the workers read access to that bucket, or set ARCHIVER_SOURCE_ACCESS.",
    ),
    Rule(
        "quarantined",
        Severity.WARNING,
        "The asset is stored as 100ms has it, and is not what was expected.",
        "`archiver show ID` lists the doubts; then `archiver accept ID` or `archiver reject ID`.",
    ),
    Rule(
        "source_failed",
        Severity.WARNING,
        "100ms reports that the recording failed, which is final.",
        "Ask 100ms if that is a surprise; then `archiver ack ID --why ...`.",
    ),
    Rule(
        "clock_is_wrong",
        Severity.CRITICAL,
        "The clock of the ledger's server differs from 100ms's, or was set back: deadlines are not known.",
        "Set the clock and run NTP; then `archiver doctor`.",
    ),
    Rule(
        "destination_clock_is_wrong",
        Severity.WARNING,
        "The clock of a destination differs from the ledger's and from 100ms's: nothing is called lost or expired.",
        "Set the clock of its server (of the worker's machine, for a directory) and run NTP; then `archiver doctor`.",
    ),
    Rule(
        "ledger_of_another_workspace",
        Severity.CRITICAL,
        "Two installations with credentials of different 100ms workspaces use one ledger; the later one is refused.",
        "Give each a Redis database of its own. If only the access key was replaced: `archiver adopt ledger`.",
    ),
    Rule(
        "no_sweep",
        Severity.CRITICAL,
        "No sweep has ended: what 100ms has is not known.",
        "Wait for the first sweep; if none ends: `archiver doctor`.",
        alert_after=timedelta(minutes=20),  # a large account's first sweep takes minutes
    ),
    Rule(
        "sweep_is_late",
        Severity.CRITICAL,
        "No sweep has begun for three intervals, or one has run for hours: new assets are not seen.",
        "Check beat and the control worker: `archiver doctor`.",
    ),
    Rule(
        "control_is_silent",
        Severity.CRITICAL,
        "The control worker or beat is dead or stuck.",
        "`archiver doctor` says which; start it.",
    ),
    Rule(
        "workers_are_silent",
        Severity.CRITICAL,
        "Assets are queued and nothing is copied: the archive workers are dead or stuck.",
        "`archiver doctor`, and the workers' logs.",
    ),
    Rule(
        "on_hold",
        Severity.WARNING,
        "A destination or the API refused; calls to it are suspended for some minutes.",
        "Fix what the reason names; `archiver doctor` says when it works.",
    ),
    Rule(
        "destination_unknown",
        Severity.CRITICAL,
        "A destination is not the one that the ledger knows; nothing is written there.",
        "Mount the disk or correct the setting; then `archiver doctor`.",
    ),
    Rule(
        "destination_refuses",
        Severity.CRITICAL,
        "A destination cannot be read: no copy there can be verified.",
        "Fix credentials or policy; then `archiver doctor`.",
    ),
    Rule(
        "destination_silent",
        Severity.WARNING,
        "Every call to a destination has failed for 5 minutes.",
        "Fix the destination, or the network of the machine that is named; then `archiver doctor`.",
    ),
    Rule(
        "many_fail",
        Severity.WARNING,
        "Many assets keep failing for one reason: a fault of something they share.",
        "Fix what the reason names: source, destination or network; then `archiver doctor`.",
    ),
    Rule(
        "assets_without_id",
        Severity.CRITICAL,
        "100ms lists assets without a usable id: they cannot be saved.",
        "Report them to 100ms.",
    ),
    Rule(
        "list_is_empty",
        Severity.CRITICAL,
        "100ms lists nothing any more, although it should keep assets that are known: new ones are not seen.",
        "Compare the credentials with the dashboard; ask 100ms. `archiver sweep` looks again.",
        alert_after=timedelta(minutes=10),
    ),
    Rule(
        "announced_not_listed",
        Severity.CRITICAL,
        "A webhook of 100ms announced a recording that its list does not show.",
        "Ask 100ms for the recording of that session; if they have it no more: `archiver ack SESSION_ID --why ...`.",
    ),
    Rule(
        "reconcile_stopped",
        Severity.CRITICAL,
        "Too many copies are missing at once: a mass deletion, or the wrong bucket.",
        "Check the destinations; if the copies are really gone: `archiver reconcile --yes`.",
    ),
    Rule(
        "reconcile_is_late",
        Severity.CRITICAL,
        "No reconcile has ended for a day: a copy that was deleted is not noticed.",
        "`archiver reconcile` says what stops it; else check beat and the control worker: `archiver doctor`.",
    ),
    Rule(
        "manifests_unreadable",
        Severity.CRITICAL,
        "Manifests cannot be read: whether their assets are archived is not known.",
        "`archiver verify ID` says why; restore the manifest from the bucket's versions.",
    ),
    Rule(
        "machine_fault",
        Severity.WARNING,
        "A worker's machine lacks memory, threads, file handles or disk.",
        "Fix or replace that machine.",
    ),
    Rule(
        "copies_missing",
        Severity.WARNING,
        "A destination lacks assets, or holds them damaged, that another one has whole.",
        "Nothing: it is replicated each hour. Faster: `archiver replicate`; with ARCHIVER_REPLICATE_BYTES, raise it.",
        alert_after=timedelta(days=1),
    ),
    Rule(
        "scrub_promise_slips",
        Severity.WARNING,
        "Copies were not checked in time, or no scrub ran.",
        "Raise ARCHIVER_SCRUB_BYTES or ARCHIVER_SCRUB_DAYS; if no scrub runs: `archiver doctor`.",
    ),
    Rule(
        "drill_failed",
        Severity.CRITICAL,
        "A copy that was restored as a test was not whole, or does not play.",
        "Not whole: it is repaired if it is marked as damaged, else `archiver verify ID`. Does not play: "
        "`archiver restore ID DIR` and open it; while 100ms has it: `archiver archive --again ID`.",
    ),
    Rule(
        "drill_is_late",
        Severity.WARNING,
        "No drill has ended in time: whether the archive can be restored was not tried.",
        "`archiver drill` says what stops it. ARCHIVER_DRILL_ASSETS=0 turns it off.",
    ),
    Rule(
        "statement_missing",
        Severity.WARNING,
        "Last month's signed statement is missing at a destination, days after it was due.",
        "`archiver statement` makes it, or says what keeps it from that.",
    ),
    Rule(
        "failed_later",
        Severity.WARNING,
        "100ms listed the asset as completed, and later as failed; it is tried until its deadline.",
        "Ask 100ms what became of the recording.",
    ),
    Rule(
        "found_damaged",
        Severity.CRITICAL,
        "`archiver verify` found copies that are not whole.",
        "While 100ms has the recording: `archiver archive --again ID`; else restore the objects and "
        "`archiver verify ID`.",
    ),
    Rule(
        "ledger_unreachable",
        Severity.CRITICAL,
        "The ledger's Redis does not answer: nothing is found, copied or known.",
        "Start Redis, or correct ARCHIVER_REDIS_URL; then `archiver doctor`. Nothing is lost with it.",
    ),
    Rule(
        "ledger_may_lose_rows",
        Severity.WARNING,
        "The ledger's Redis evicts keys, is nearly full, or cannot write its append-only file.",
        "Set maxmemory-policy noeviction, and give it enough memory and disk; then `archiver doctor`.",
    ),
    Rule(
        "ledger_not_persistent",
        Severity.WARNING,
        "The ledger's Redis has no append-only file, no save points and no replica: a restart forgets it.",
        "Set appendonly yes; then `archiver doctor`. A lost ledger is rebuilt from the buckets.",
        alert_after=timedelta(minutes=10),  # a replica that is being replaced
    ),
    Rule(
        "disk_nearly_full",
        Severity.WARNING,
        "The disk of the state directory is nearly full.",
        "Free some space, or move ARCHIVER_STATE_DIR to a larger disk.",
    ),
    Rule(
        "alert_channel_fails",
        Severity.WARNING,
        "Alerts do not reach one of the channels.",
        "Correct its URL in ARCHIVER_ALERT_URLS; try it with `archiver alerts test`.",
    ),
    Rule(
        "alerts_are_silent",
        Severity.WARNING,
        "Nobody looks for alerts: no channel is told of anything.",
        "Start `archiver serve` (part of `archiver up`), and see its log.",
        alert_after=timedelta(minutes=5),  # whoever tells of it looks again
    ),
    Rule(
        "events_not_delivered",
        Severity.WARNING,
        "The receiver of ARCHIVER_EVENT_URL has not taken events for an hour.",
        "Fix the receiver, or the URL; nothing is lost meanwhile: `archiver events` shows how many wait.",
    ),
    Rule(
        "events_dropped",
        Severity.WARNING,
        "So many events wait that newer ones were not kept.",
        "Fix the receiver; when it has taken what waits: `archiver events replay --since ...`.",
    ),
    Rule(
        "erasure_unfinished",
        Severity.WARNING,
        "Assets are to be erased, or have expired, and something of them is left.",
        "`archiver list --state erasing` says what is left and why; then `archiver reconcile`.",
        alert_after=timedelta(hours=2),  # the hourly reconcile finishes what was interrupted
    ),
    Rule(
        "expiry_unconfirmed",
        Severity.WARNING,
        "ARCHIVER_KEEP_DAYS is shorter than what was accepted; nothing expires before a person accepts it.",
        "`archiver expire` lists what it would delete; `archiver expire --yes` accepts it.",
    ),
    Rule(
        "expiry_held",
        Severity.WARNING,
        "The term of archived assets is over, and nothing expires before the clocks agree and the ledger was compared.",
        "The text says why. A wrong clock: set it and run NTP; then `archiver expire`.",
        alert_after=timedelta(hours=6),
    ),
    Rule(
        "expiring_soon", Severity.INFO, "Archived assets whose term ends within 7 days are deleted then.", ""
    ),
    Rule(
        "erasure_waits",
        Severity.INFO,
        "Object Lock or a retention policy keeps assets that are to be erased; reconcile erases them afterwards.",
        "",
    ),
    Rule("acknowledged", Severity.INFO, "A person acknowledged these ends.", ""),
    Rule("scrubbed", Severity.INFO, "When the copies at a destination were last checked.", ""),
    Rule("drilled", Severity.INFO, "When copies were last restored as a test, and how long that took.", ""),
    Rule(
        "catalogue_is_late",
        Severity.INFO,
        "The monthly tables at a destination have not been renewed for days.",
        "",
    ),
    Rule(
        "ledger_weakly_persistent",
        Severity.INFO,
        "The ledger's Redis may forget the newest of it at a restart, or does not tell whether it keeps anything.",
        "",
    ),
    Rule("paused", Severity.INFO, "A person paused a destination, or everything.", ""),
    Rule("forecast", Severity.INFO, "When everything that is known will be saved.", ""),
    Rule("sweep_running", Severity.INFO, "A sweep is running.", ""),
)
RULES: Mapping[str, Rule] = {rule.id: rule for rule in _RULES}


def finding(rule_id: str, text: str, *, cause: str = "", level: int = 0) -> Finding:
    """Raise KeyError for an id that is not in RULES."""
    return Finding(RULES[rule_id], text, cause, level)
