"""Checks of the 100ms API: credentials, clock, and whether a recording can be read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from archiver.core.attempt.context import OpenContents
from archiver.core.errors import ArchiveError
from archiver.core.judging import Scope, judge
from archiver.hms.client import HmsClient
from archiver.hms.errors import HmsError, HmsUnauthorized, HmsUntrusted
from archiver.hms.models import Asset, AssetStatus
from archiver.ledger.models import AssetState
from archiver.transfer.errors import TransferError
from storage_backends.errors import StorageError
from worker.doctor.check_result import CheckResult, Verdict
from worker.settings import Settings

API = "100ms API"
MAX_SKEW = timedelta(seconds=10)
"""Management tokens are backdated by as much: beyond it new ones may be refused."""
SOURCES_TRIED = 3
"""A single recording may have been deleted a moment ago, or be unreadable for a reason of its own."""
CERTIFICATES_HELP = "See Certificates in docs/operations.md."


def check_api(settings: Settings, api: HmsClient) -> Iterator[CheckResult]:
    subject = f"{API} at {settings.hms_api_url}"
    if not settings.has_credentials:
        yield CheckResult(
            subject,
            Verdict.PROBLEM,
            "no credentials",
            "Set HMS_ACCESS_KEY and HMS_SECRET (100ms dashboard, Developer section) in .env.",
        )
        return
    try:
        api.check()
    except HmsUntrusted as error:
        yield CheckResult(subject, Verdict.PROBLEM, str(error), CERTIFICATES_HELP)
    except HmsUnauthorized as error:
        yield CheckResult(
            subject,
            Verdict.PROBLEM,
            str(error),
            "Compare HMS_ACCESS_KEY and HMS_SECRET with the dashboard.",
        )
    except HmsError as error:
        yield CheckResult(
            subject, Verdict.PROBLEM, str(error), "Check HMS_API_URL and the network of this machine."
        )
    else:
        yield CheckResult(subject, Verdict.OK, "answers and accepts the credentials")
    skew = api.clock_skew()
    if skew is not None and abs(skew) > MAX_SKEW:
        direction = "ahead of" if skew > timedelta(0) else "behind"
        yield CheckResult(
            "clock",
            Verdict.PROBLEM,
            f"this machine is {abs(skew).total_seconds():.0f} s {direction} the API's clock",
            "Turn on NTP. Until then log times are wrong, and stores may refuse requests.",
        )
    elif skew is not None:
        yield CheckResult("clock", Verdict.OK, f"within {MAX_SKEW.total_seconds():.0f} s of the API's")


def check_source(api: HmsClient, scope: Scope, open_contents: OpenContents) -> CheckResult:
    """Read the first bytes of one recording: signed by the API, served by 100ms's storage."""
    subject = "source"
    failure: Exception | None = None
    try:
        page = next(iter(api.pages()), None)
        wanted = [asset for asset in page.assets if _is_wanted(asset, scope)] if page else []
        for asset in wanted[:SOURCES_TRIED]:
            try:
                open_contents(asset)
            except (HmsError, TransferError, ArchiveError, StorageError) as error:
                failure = error
            else:
                return CheckResult(subject, Verdict.OK, f"the first bytes of {asset.id} can be read")
    except HmsError as error:
        failure = error
    if failure is None:
        return CheckResult(subject, Verdict.OK, "not tried: the API lists no recording to archive")
    return CheckResult(
        subject,
        Verdict.PROBLEM,
        f"no recording can be read: {type(failure).__name__}: {failure}",
        "Recordings come from 100ms's storage or CDN, not from the API: this machine must reach it over https. "
        + CERTIFICATES_HELP,
    )


def _is_wanted(asset: Asset, scope: Scope) -> bool:
    return asset.status == AssetStatus.COMPLETED and judge(asset, scope).verdict is AssetState.DISCOVERED
