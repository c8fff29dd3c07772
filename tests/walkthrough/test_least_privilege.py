"""Archive under exactly the worker's policy, verify and restore under exactly the reader's, on a server that enforces
them."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import boto3
import pytest

from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.simulator.process import Simulator
from tests.walkthrough.user import User, user_of

POLICIES = Path(__file__).parents[2] / "deploy/policies"
DENIED = re.compile(r"AccessDenied|\b403\b|lacks s3:")  # times have such digits too


@pytest.fixture
def user(tmp_path: Path, empty_simulator: Simulator, redis_url: str, enforcing_server: S3Server) -> User:
    for kind in ("composite", "chat"):
        empty_simulator.add_asset(kind)
    bucket = enforcing_server.new_bucket()
    url = enforcing_server.url(bucket, "recordings")
    return user_of(
        tmp_path, empty_simulator, redis_url, **enforcing_server.env, ARCHIVER_DESTINATIONS=url, BUCKET=bucket
    )


def become(user: User, role: str, server: S3Server) -> None:
    """Give the user credentials that have the policy of `role` alone."""
    session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
    bucket = user.environment["BUCKET"]
    with contextlib.closing(session.client("iam", endpoint_url=server.endpoint_url)) as iam:
        name = f"{role}-of-{bucket}"
        policy = json.loads((POLICIES / f"s3-{role}.json").read_text().replace("my-bucket", bucket))
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
    user.environment["AWS_ACCESS_KEY_ID"] = key["AccessKeyId"]
    user.environment["AWS_SECRET_ACCESS_KEY"] = key["SecretAccessKey"]


def test_a_worker_archives_and_a_reader_verifies_and_restores(
    user: User, enforcing_server: S3Server, tmp_path: Path
) -> None:
    become(user, "worker", enforcing_server)
    archived = user.types("run", "--once", "--json", "--wait", "0")
    scrubbed = user.types("scrub", "--now")

    assert archived.json["states"] == {"archived": 2}, archived.stderr
    assert scrubbed.exit_code == 0, scrubbed.text
    for said in (archived, scrubbed):
        assert not DENIED.search(said.text), said.text

    become(user, "reader", enforcing_server)
    verified = user.types("verify", "--without-ledger")
    asset_id = user.types("list", "--json").json["asset_id"]
    restored = user.types("restore", asset_id, str(tmp_path / "restored"))

    assert verified.exit_code == 0, verified.text
    assert "2 of 2 copies are whole" in verified.text
    assert restored.exit_code == 0, restored.text
    assert any(path.is_file() for path in (tmp_path / "restored").rglob("*"))
