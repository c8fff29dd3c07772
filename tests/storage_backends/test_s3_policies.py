"""The policies of deploy/policies are enough, and each of their actions is needed, on a server that enforces them.

ministack with AUTH=true checks signatures and IAM policies by action and resource. It does not ask for
s3:PutObjectTagging or s3:PutObjectAcl where tags or an ACL come with a PUT, as AWS does.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from archiver.core.destinations.probing import begin_and_abort
from archiver.core.errors import AssetErased
from archiver.core.records import keys, removal, session_records, tombstones
from archiver.core.records.session_records import SessionRecord, SessionRecords
from archiver.core.records.tombstones import Tombstone
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectKey, ObjectSpec, object_key
from storage_backends.conditional import replace_if
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import AccessDenied
from storage_backends.optional import Right
from storage_backends.registry import open_destination
from storage_backends.s3 import S3Backend
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server
from worker.doctor.check_result import Verdict
from worker.doctor.destinations import check_destination

POLICIES = Path(__file__).parents[2] / "deploy/policies"
PART = b"p" * (5 * 2**20)
MEDIA = object_key("recordings/room/movie.mp4")
MANIFEST = object_key("manifests/2026/01/01/a.json")
PROBE = object_key("doctor/probe-rights.bin")


def policy_of(name: str, bucket: str) -> dict[str, Any]:
    text = (POLICIES / f"{name}.json").read_text().replace("my-bucket", bucket)
    policy: dict[str, Any] = json.loads(text)
    return policy


def actions_of(name: str) -> list[str]:
    return [action for statement in policy_of(name, "b")["Statement"] for action in statement["Action"]]


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    """A statement without an action would be invalid."""
    statements = [
        {**each, "Action": [one for one in each["Action"] if one != action]} for each in policy["Statement"]
    ]
    return {**policy, "Statement": [each for each in statements if each["Action"]]}


class Account:
    """A bucket, and users of it with policies of their own."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.bucket = server.new_bucket()
        self._iam = boto3.session.Session().client(
            "iam",
            endpoint_url=server.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    @contextlib.contextmanager
    def user(self, policy: dict[str, Any], **options: str) -> Iterator[S3Backend]:
        """The destination, with the credentials of a new user that has `policy` alone."""
        name = f"user-{secrets.token_hex(6)}"
        self._iam.create_user(UserName=name)
        key = self._iam.create_access_key(UserName=name)["AccessKey"]
        self._iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in self.server.env.items():
                patch.setenv(variable, value)
            patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            store = open_destination(self.server.url(self.bucket, "recordings", **options))
            assert isinstance(store, S3Backend)
            with contextlib.closing(store):
                yield store


@pytest.fixture(scope="module")
def account(enforcing_server: S3Server) -> Account:
    return Account(enforcing_server)


# -- what the workers do -------------------------------------------------------------------------------------
def put(store: S3Backend, key: ObjectKey) -> None:
    data = secrets.token_bytes(16)  # the same content there already would be success
    store.put(ObjectSpec(key, "application/json"), data, crc32c_of(data))


def archive(store: S3Backend) -> None:
    """As an attempt does: a large object that is resumed, a small one, and the manifest on a condition, twice."""
    spec = ObjectSpec(MEDIA, "video/mp4", len(PART), len(PART))
    upload = store.begin(spec)
    part = upload.put_part(1, PART, crc32c_of(PART))
    resumed = store.resume(spec, upload.token)
    assert resumed.parts()
    resumed.complete([part], crc32c_of(PART))
    key = object_key(f"manifests/{secrets.token_hex(8)}.json")
    first = replace_if(store, ObjectSpec(key, "application/json"), b"{}", crc32c_of(b"{}"), None)
    replace_if(store, ObjectSpec(key, "application/json"), b"[]", crc32c_of(b"[]"), first)
    assert store.read(key) == b"[]"


def read_back(store: S3Backend) -> None:
    assert store.read(MEDIA, 0, 5) == PART[:5]


def list_it(store: S3Backend) -> None:
    assert store.stat(object_key("recordings/room/not-there.mp4")) is None
    list(store.list("manifests/"))


def resume(store: S3Backend) -> None:
    spec = ObjectSpec(MEDIA, "video/mp4", len(PART), len(PART))
    upload = store.begin(spec)
    store.resume(spec, upload.token)


def abort(store: S3Backend) -> None:
    store.begin(ObjectSpec(MEDIA, "video/mp4", len(PART), len(PART))).abort()


def abort_stale(store: S3Backend) -> None:
    store.abort_stale_uploads(timedelta(days=7))


def replace_records(store: S3Backend) -> None:
    for folder in (keys.DOCTOR, keys.CHECKS, keys.ENDS, keys.EVENTS):
        key = object_key(f"{folder}{secrets.token_hex(8)}.json")
        put(store, key)
        store.delete(key)


def read_rules(store: S3Backend) -> None:
    if store.removes_stale_uploads() is None:
        raise AccessDenied("the rules cannot be read")  # which is no error for its caller


NEEDED_FOR: dict[str, Callable[[S3Backend], None]] = {
    "s3:PutObject": lambda store: put(store, MANIFEST),
    "s3:GetObject": read_back,
    "s3:ListBucket": list_it,
    "s3:ListMultipartUploadParts": resume,
    "s3:AbortMultipartUpload": abort,
    "s3:ListBucketMultipartUploads": abort_stale,
    "s3:DeleteObject": replace_records,
    "s3:GetLifecycleConfiguration": read_rules,
}


def test_every_action_of_the_worker_is_tested() -> None:
    assert NEEDED_FOR.keys() == set(actions_of("s3-worker"))


def test_under_exactly_its_policy_a_worker_does_all_it_has_to(account: Account) -> None:
    with account.user(policy_of("s3-worker", account.bucket)) as store:
        archive(store)
        for do in NEEDED_FOR.values():
            do(store)
        findings = list(check_destination(store))

    assert {finding.verdict for finding in findings} <= {Verdict.OK, Verdict.WARNING}
    warnings = [finding.detail for finding in findings if finding.verdict is Verdict.WARNING]
    assert all("lifecycle rule" in warning for warning in warnings), warnings


@pytest.mark.parametrize("action", NEEDED_FOR)
def test_without_one_action_a_worker_is_refused_and_doctor_names_it(action: str, account: Account) -> None:
    with account.user(policy_of("s3-worker", account.bucket)) as whole:
        archive(whole)
    with account.user(without(policy_of("s3-worker", account.bucket), action)) as store:
        with pytest.raises(AccessDenied):
            NEEDED_FOR[action](store)
        missing = [
            right.action for right in store.rights(PROBE) if right.granted is False and right.needed_for
        ]
        findings = list(check_destination(store))

    assert missing == [action]
    named = [
        finding for finding in findings if action in finding.detail and finding.verdict is not Verdict.OK
    ]
    assert any("deploy/policies/s3-worker.json" in finding.remedy for finding in named)


@pytest.mark.parametrize("key", [MEDIA, MANIFEST, keys.MARKER])
def test_a_worker_cannot_delete_what_is_archived(key: ObjectKey, account: Account) -> None:
    with account.user(policy_of("s3-worker", account.bucket)) as store:
        put(store, key)
        with pytest.raises(AccessDenied):
            store.delete(key)

        assert store.stat(key) is not None


# -- who only reads ------------------------------------------------------------------------------------------
READS: dict[str, Callable[[S3Backend], None]] = {"s3:GetObject": read_back, "s3:ListBucket": list_it}


def test_every_action_of_the_reader_is_tested() -> None:
    assert READS.keys() == set(actions_of("s3-reader"))


@pytest.mark.parametrize("action", READS)
def test_a_reader_needs_each_action_of_its_policy_and_no_other(action: str, account: Account) -> None:
    with account.user(policy_of("s3-worker", account.bucket)) as writer:
        archive(writer)
    with account.user(policy_of("s3-reader", account.bucket)) as store:
        for read in READS.values():
            read(store)
        with pytest.raises(AccessDenied):
            put(store, MANIFEST)
    with (
        account.user(without(policy_of("s3-reader", account.bucket), action)) as store,
        pytest.raises(AccessDenied),
    ):
        READS[action](store)


@pytest.mark.parametrize("withheld", ["s3:PutObject", None])
def test_the_watch_notices_a_refusal_to_write(withheld: str | None, account: Account) -> None:
    policy = policy_of("s3-worker", account.bucket)
    with account.user(policy if withheld is None else without(policy, withheld)) as store:
        error = begin_and_abort(store)

    assert (error is None) if withheld is None else isinstance(error, AccessDenied)


# -- who erases ----------------------------------------------------------------------------------------------
FOLDER = object_key("recordings/erased")
TARGETS = removal.Targets((FOLDER,), (MANIFEST,))
TOMBSTONE = Tombstone("erased", AssetState.ERASED, "GDPR-1", datetime(2026, 1, 1, tzinfo=UTC))


def refused_if(left: removal.Left) -> None:
    if left:
        raise AccessDenied(str(list(left.notes)))


def erase_rows(store: S3Backend) -> None:
    removal.forget_rows(store, [object_key("manifests/2026/01/01/erased.json")])
    store.read(MANIFEST)


ERASES: dict[str, Callable[[S3Backend], None]] = {
    "s3:ListBucket": erase_rows,
    "s3:GetObject": erase_rows,
    "s3:PutObject": lambda store: tombstones.write(store, TOMBSTONE),
    "s3:ListBucketVersions": lambda store: refused_if(removal.remove(store, TARGETS)),
    "s3:DeleteObjectVersion": lambda store: refused_if(removal.remove(store, TARGETS)),
    "s3:ListBucketMultipartUploads": lambda store: removal.abort_uploads(store, [FOLDER]),
    "s3:AbortMultipartUpload": lambda store: removal.abort_uploads(store, [FOLDER]),
    "s3:DeleteObject": lambda store: tombstones.delete([store], TOMBSTONE.asset_id),
}


@pytest.fixture
def to_erase(account: Account) -> Account:
    """Two versions of an object, a manifest and an open upload."""
    with contextlib.closing(account.server.client()) as client:
        versioned = {"Status": "Enabled"}
        client.put_bucket_versioning(Bucket=account.bucket, VersioningConfiguration=versioned)  # type: ignore[arg-type]
        for body in (b"one", b"two"):
            client.put_object(Bucket=account.bucket, Key=f"recordings/{FOLDER}/movie.mp4", Body=body)
        client.put_object(Bucket=account.bucket, Key=f"recordings/{MANIFEST}", Body=b"{}")
        client.create_multipart_upload(Bucket=account.bucket, Key=f"recordings/{FOLDER}/large.mp4")
    return account


def test_every_action_of_the_eraser_is_tested() -> None:
    assert ERASES.keys() == set(actions_of("s3-eraser"))


def test_under_exactly_its_policy_an_eraser_leaves_nothing(to_erase: Account) -> None:
    session = SessionRecord("s1", "r1", None, None, None, ("another", "erased"), TOMBSTONE.at)
    with to_erase.user(policy_of("s3-eraser", to_erase.bucket)) as store:
        tombstones.write(store, TOMBSTONE)
        erase_rows(store)
        left = removal.what_is_left(store, TARGETS, removal.remove(store, TARGETS))
        removal.abort_uploads(store, [FOLDER])
        session_records.write(store, session)
        SessionRecords().forget(store, "s1", ["erased"])
        shared = session_records.read(store, "s1")
        SessionRecords().forget(store, "s1", ["erased", "another"])
        assert shared is not None
        assert shared.assets == ("another",)
        assert session_records.read(store, "s1") is None
        with pytest.raises(AssetErased):
            tombstones.check(store, "erased")
        tombstones.delete([store], "erased")
    with contextlib.closing(to_erase.server.client()) as client:
        versions = client.list_object_versions(Bucket=to_erase.bucket, Prefix=f"recordings/{FOLDER}")
        uploads = client.list_multipart_uploads(Bucket=to_erase.bucket, Prefix=f"recordings/{FOLDER}")

    assert not left
    assert "Versions" not in versions
    assert "DeleteMarkers" not in versions
    assert "Uploads" not in uploads


@pytest.mark.parametrize("action", ERASES)
def test_an_eraser_needs_each_action_of_its_policy(action: str, to_erase: Account) -> None:
    with (
        to_erase.user(without(policy_of("s3-eraser", to_erase.bucket), action)) as store,
        pytest.raises(AccessDenied),
    ):
        ERASES[action](store)


def test_an_eraser_cannot_write_what_is_archived(to_erase: Account) -> None:
    with to_erase.user(policy_of("s3-eraser", to_erase.bucket)) as store:
        for key in (MEDIA, MANIFEST, keys.MARKER):
            with pytest.raises(AccessDenied):
                put(store, key)


# -- excess, and the rights of options -----------------------------------------------------------------------
def allowing(bucket: str, *actions: str) -> dict[str, Any]:
    everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*", "*"]
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": everything}],
    }


def excess(rights: list[Right]) -> set[str]:
    return {right.action for right in rights if right.granted and not right.needed_for}


def test_rights_that_are_not_needed_are_told_where_they_can_be(account: Account) -> None:
    with account.user(policy_of("s3-worker", account.bucket)) as store:
        minimal = list(store.rights(PROBE))
    with account.user(allowing(account.bucket, "s3:*")) as store:
        everything = list(store.rights(PROBE))
        findings = list(check_destination(store))

    assert excess(minimal) == set()
    assert excess(everything) == {
        "s3:GetBucketPolicy",
        "s3:GetBucketAcl",
        "s3:ListAllMyBuckets",
        "s3:GetObject outside of recordings/",
    }
    (told,) = [finding for finding in findings if "does not need" in finding.detail]
    assert told.verdict is Verdict.WARNING
    assert "s3:GetBucketPolicy" in told.detail


def test_a_lock_needs_rights_of_its_own(account: Account) -> None:
    bucket = f"{account.bucket}-locks"
    with contextlib.closing(account.server.client()) as client:
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    locked = Account(account.server)
    locked.bucket = bucket
    options = {"lock_mode": "GOVERNANCE", "lock_days": "1"}
    policy = policy_of("s3-worker", bucket)
    with locked.user(policy, **options) as store:
        missing = {
            right.action for right in store.rights(PROBE) if right.granted is False and right.needed_for
        }
    policy["Statement"][1]["Action"] += ["s3:PutObjectRetention", "s3:GetObjectRetention"]
    with locked.user(policy, **options) as store:
        put(store, MEDIA)
        until = store.lock([MEDIA])
        now_missing = [right for right in store.rights(PROBE) if right.granted is False and right.needed_for]

    assert missing == {"s3:PutObjectRetention", "s3:GetObjectRetention"}
    assert until is not None
    assert now_missing == []


def test_nothing_is_left_of_the_probe(account: Account) -> None:
    probe = object_key("doctor/probe-of-its-own.bin")
    with account.user(policy_of("s3-worker", account.bucket)) as store:
        list(store.rights(probe))

        assert store.stat(probe) is None
    with contextlib.closing(account.server.client()) as client:
        left = client.list_multipart_uploads(Bucket=account.bucket, Prefix=f"recordings/{probe}")
    assert "Uploads" not in left


def test_a_server_that_has_no_such_requests_is_said_to_lack_and_exceed_nothing(
    rclone_server: S3Server,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in rclone_server.env.items():
            patch.setenv(name, value)
        store = open_destination(rclone_server.url(rclone_server.new_bucket(), "recordings"))
        assert isinstance(store, S3Backend)
        with contextlib.closing(store):
            rights = list(store.rights(PROBE))

    assert [right.action for right in rights if right.granted is False] == []
    assert not excess(rights) & {"s3:GetBucketPolicy", "s3:GetBucketAcl"}
