"""Erasing on real servers: every version goes, what a lock keeps is told with its date, and a server without versions
is emptied all the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.core.records import keys, removal
from archiver.core.records.removal import Targets
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.terms import Terms
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectSpec, StorageBackend, object_key
from storage_backends.registry import open_destination
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock
from tests.servers import GcsServer, S3Server
from worker.doctor.check_result import Verdict
from worker.doctor.lifecycle import check_lifecycle

FOLDER = object_key("recordings/asset-1")
TARGETS = Targets([FOLDER], [object_key("manifests/2026/03/01/asset-1.json")])
DAY = timedelta(days=1)


@contextlib.contextmanager
def opened(server: S3Server, bucket: str) -> Iterator[StorageBackend]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        with contextlib.closing(open_destination(server.url(bucket, "pre/fix"))) as store:
            yield store


@pytest.fixture
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


every_server = pytest.mark.parametrize(
    "server", ["moto_server", "ministack_server", "rclone_server"], indirect=True
)


@every_server
def test_without_versions_everything_of_an_asset_is_removed_and_its_neighbours_stay(server: S3Server) -> None:
    with opened(server, server.new_bucket()) as store:
        for name in ("recordings/asset-1/a/b.ts", "recordings/asset-1/c.mp4", *TARGETS.objects):
            put(store, name, b"x")
        put(store, "recordings/asset-1-too/c.mp4", b"x")
        store.begin(ObjectSpec(object_key("recordings/asset-1/open.mp4"), "video/mp4", 10**7, 5 * 2**20))

        why = removal.remove(store, TARGETS)
        removal.abort_uploads(store, TARGETS.folders)
        removal.forget_rows(store, TARGETS.objects)

        assert not removal.what_is_left(store, TARGETS, why)
        assert [info.key for info in store.list()] == ["recordings/asset-1-too/c.mp4"]


@every_server
def test_many_are_erased_together_and_those_between_them_stay(server: S3Server) -> None:
    bucket = server.new_bucket()
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    made = [asset(id=f"{0x6400C0D3E1B2A3C4D5E6F700 + number:x}") for number in range(24)]
    with opened(server, bucket) as store, contextlib.closing(server.client()) as client:
        for each in made:
            enter(ledger, each)
            archive_at([store], each, {"movie.mp4": b"m"})
        erased = [each for number, each in enumerate(made) if number % 4]
        eraser = Eraser(ledger=ledger, destinations=[store], clock=clock)

        removals = list(eraser.erase([each.id for each in erased], ticket="GDPR-1"))

        assert [each.state for each in removals] == [AssetState.ERASED] * 18
        found = [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]]
    left = [key.removeprefix("pre/fix/") for key in found]
    ids = {each.id for each in made if each not in erased}
    assert sum(key.startswith("ends/tombstones/") for key in left) == 18
    assert {key.split("/")[1] for key in left if key.startswith("recordings/")} == ids
    assert {keys.asset_id_of(key) for key in left if key.startswith("manifests/")} == ids


def versioned(server: S3Server, *, locked: bool = False) -> str:
    bucket = server.new_bucket()
    with contextlib.closing(server.client()) as client:
        if locked:
            bucket = f"{bucket}-locked"
            client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def versions_in(server: S3Server, bucket: str) -> list[str]:
    with contextlib.closing(server.client()) as client:
        answer = client.list_object_versions(Bucket=bucket)
    return sorted(each["Key"] for each in [*answer.get("Versions", []), *answer.get("DeleteMarkers", [])])


@pytest.mark.parametrize("server", ["moto_server", "ministack_server"], indirect=True)
def test_every_version_and_mark_of_a_deletion_goes(server: S3Server) -> None:
    bucket = versioned(server)
    with opened(server, bucket) as store:
        for data in (b"first", b"second"):
            put(store, "recordings/asset-1/c.mp4", data)
            put(store, "recordings/asset-2/c.mp4", data)
        put(store, "recordings/asset-1/deleted.mp4", b"x")
        store.delete(object_key("recordings/asset-1/deleted.mp4"))

        why = removal.remove(store, TARGETS)

        assert not removal.what_is_left(store, TARGETS, why)
    assert versions_in(server, bucket) == ["pre/fix/recordings/asset-2/c.mp4"] * 2


@pytest.mark.parametrize("server", ["moto_server", "ministack_server"], indirect=True)
def test_of_an_erased_asset_one_version_of_its_tombstone_stays(server: S3Server) -> None:
    """Earlier ones name its folder, and so room and session."""
    bucket = versioned(server)
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    enter(ledger, asset())
    with opened(server, bucket) as store:
        archive_at([store], asset())
        eraser = Eraser(ledger=ledger, destinations=[store], clock=clock)

        (removal_,) = eraser.erase([asset().id], ticket="GDPR-1")

    assert removal_.state is AssetState.ERASED
    assert versions_in(server, bucket) == [f"pre/fix/{keys.tombstone_key(asset().id)}"]


def test_what_object_lock_keeps_is_told_with_its_date_and_erased_then(moto_server: S3Server) -> None:
    bucket = versioned(moto_server, locked=True)
    until = datetime.now(UTC).replace(microsecond=0) + 10 * DAY
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    with opened(moto_server, bucket) as store, contextlib.closing(moto_server.client()) as client:
        enter(ledger, asset())
        archive_at([store], asset())
        locked = f"pre/fix/recordings/{asset().id}/movie.mp4"
        client.put_object_retention(
            Bucket=bucket, Key=locked, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until}
        )
        eraser = Eraser(ledger=ledger, destinations=[store], clock=clock)

        (removal_,) = eraser.erase([asset().id], ticket="GDPR-1")

        assert removal_.state is AssetState.ERASING
        assert removal_.locked_until == until
        assert f"a lock lasts until {until:%Y-%m-%d}" in removal_.reason
        kept = [key for key in versions_in(moto_server, bucket) if asset().id in key.split("/")]
        assert kept == [locked]
        tombstone = store.stat(keys.tombstone_key(asset().id))
        assert tombstone is not None


def test_a_legal_hold_has_no_date(moto_server: S3Server) -> None:
    bucket = versioned(moto_server, locked=True)
    with opened(moto_server, bucket) as store, contextlib.closing(moto_server.client()) as client:
        put(store, "recordings/asset-1/c.mp4", b"x")
        client.put_object_legal_hold(
            Bucket=bucket, Key="pre/fix/recordings/asset-1/c.mp4", LegalHold={"Status": "ON"}
        )

        left = removal.what_is_left(store, TARGETS, removal.remove(store, TARGETS))

        assert left.visible == 1
        assert left.waits_until is None
        assert "AccessDenied" in left.say(store)


def test_a_rule_that_deletes_before_its_term_is_a_problem_of_doctor(moto_server: S3Server) -> None:
    bucket = moto_server.new_bucket()

    def rule(name: str, prefix: str, **more: object) -> dict[str, object]:
        return {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}, **more}

    rules = [
        rule("media", "pre/fix/recordings/", Expiration={"Days": 365}),
        rule("all", "pre/", Expiration={"Days": 400}),
        rule("tables", "pre/fix/catalogue/", Expiration={"Days": 1}),
        rule("elsewhere", "backups/", Expiration={"Days": 1}),
        rule("versions", "", NoncurrentVersionExpiration={"NoncurrentDays": 30}),
    ]
    with opened(moto_server, bucket) as store, contextlib.closing(moto_server.client()) as client:
        nothing = list(check_lifecycle(store, Terms(365)))
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket,
            LifecycleConfiguration={"Rules": rules},  # type: ignore[typeddict-item]
        )
        for terms, verdicts in (
            (Terms(365, {"chat": 30}), [Verdict.OK, Verdict.WARNING]),
            (Terms(380), [Verdict.PROBLEM, Verdict.WARNING]),
            (Terms(365, {"chat": 0}), [Verdict.PROBLEM, Verdict.PROBLEM]),
            (Terms(), [Verdict.PROBLEM, Verdict.PROBLEM]),
        ):
            assert [each.verdict for each in check_lifecycle(store, terms)] == verdicts
        (first, _) = check_lifecycle(store, Terms(380))

    assert nothing == []
    assert (
        "'media' deletes recordings/ after 365 days, and ARCHIVER_KEEP_DAYS keeps for 380 days"
        in first.detail
    )


def test_generations_of_google_cloud_storage_go_too(gcs_server: GcsServer) -> None:
    bucket = gcs_server.new_bucket()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gcs_server.env.items():
            patch.setenv(name, value)
        with contextlib.closing(open_destination(gcs_server.url(bucket, "pre/fix"))) as store:
            for name in ("recordings/asset-1/a/b.ts", *TARGETS.objects, "recordings/asset-1-too/c.mp4"):
                put(store, name, b"x")
            put(store, "recordings/asset-1/a/b.ts", b"again")

            why = removal.remove(store, TARGETS)

            assert not removal.what_is_left(store, TARGETS, why)
            assert [info.key for info in store.list()] == ["recordings/asset-1-too/c.mp4"]
            assert list(check_lifecycle(store, Terms())) == []


def test_a_directory_keeps_no_unfinished_upload_and_no_empty_folder(tmp_path: Path) -> None:
    with contextlib.closing(open_destination(f"file://{tmp_path}/archive")) as store:
        put(store, "recordings/asset-1/a/b.ts", b"x")
        put(store, "recordings/asset-1-too/c.mp4", b"x")
        for key in ("recordings/asset-1/open.mp4", "recordings/asset-1-too/open.mp4"):
            store.begin(ObjectSpec(object_key(key), "video/mp4", 100, 10))

        why = removal.remove(store, TARGETS)
        removal.abort_uploads(store, TARGETS.folders)

        assert not removal.what_is_left(store, TARGETS, why)
    assert [path.name for path in (tmp_path / "archive/recordings").iterdir()] == ["asset-1-too"]
    (left,) = (tmp_path / "archive/.uploads").iterdir()
    assert (left / "key").read_text() == "recordings/asset-1-too/open.mp4"
