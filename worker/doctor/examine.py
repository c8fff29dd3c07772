"""`archiver doctor`: run every check, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from archiver.core.attempt.context import OpenContents
from archiver.core.destinations.checked import Destinations
from archiver.core.judging import Scope
from archiver.hms.client import HmsClient
from archiver.http import trust
from archiver.ledger.redis.ledger import RedisLedger
from storage_backends.base import StorageBackend
from worker.doctor.api import API, check_api, check_source
from worker.doctor.broker import check_broker
from worker.doctor.check_result import CheckResult, Verdict
from worker.doctor.destinations import check_destination
from worker.doctor.disk import check_free_space
from worker.doctor.identities import check_identity
from worker.doctor.lifecycle import check_lifecycle
from worker.doctor.processes import check_processes
from worker.settings import Settings


def examine(
    settings: Settings,
    *,
    api: HmsClient,
    ledger: RedisLedger,
    destinations: list[StorageBackend],
    workers: Callable[[], list[str]],
    scope: Scope,
    open_contents: OpenContents,
    identities: Destinations | None = None,
) -> Iterator[CheckResult]:
    """Yield each finding as soon as it is made. `workers` pings the workers and returns their names; `open_contents`
    reads the first bytes of an asset as a copy would; `identities` compares the markers of `destinations` with the
    ledger."""
    for warning in settings.warnings:
        yield CheckResult("settings", Verdict.WARNING, warning, "See .env.example.")
    yield _authorities(settings)
    api_answers = False
    for finding in check_api(settings, api):
        api_answers = api_answers or (finding.subject.startswith(API) and finding.verdict is Verdict.OK)
        yield finding
    if api_answers:
        yield check_source(api, scope, open_contents)
    broker_is_up = True
    for finding in check_broker(ledger):
        broker_is_up = broker_is_up and finding.verdict is not Verdict.PROBLEM
        yield finding
    if broker_is_up:
        yield from check_processes(ledger, workers, has_broker=settings.redis_url is not None)
    yield from check_free_space("state directory", settings.state_dir)
    for store in destinations:
        found = check_identity(store.name, identities) if identities is not None else None
        if found is not None:
            yield found
        if found is None or found.verdict is not Verdict.PROBLEM:
            yield from check_destination(store, ledger)
            yield from check_lifecycle(store, settings.keep_terms)


def _authorities(settings: Settings) -> CheckResult:
    detail = f"the system's certificate authorities are trusted, {trust.system_store()}"
    added = trust.ca_file(settings.ca_file)
    if added is not None:
        detail += f", and those of {added.setting}, {added.path}"
    return CheckResult("certificates", Verdict.OK, detail)
