"""A VOD in a bucket of the customer's own, of which 100ms signs the playlist alone (form 3)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import S3Server
from tests.simulator.process import running_simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import check_asset, manifests
from tests.walkthrough.user import user_of

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


@pytest.mark.parametrize(
    ("kind", "by_setting"), [("ministack", True), ("rclone", False)], ids=["named", "as the SDK finds it"]
)
def test_with_access_to_its_bucket_it_is_archived_and_without_it_it_says_what_it_needs(
    kind: str, by_setting: bool, tmp_path: Path, redis_url: str, request: pytest.FixtureRequest
) -> None:
    server: S3Server = request.getfixturevalue(f"{kind}_server")
    with running_simulator("needs-source-access") as simulator, closing(server.client()) as client:
        user = user_of(tmp_path, simulator, redis_url, **server.env)
        vod = simulator.asset("vod-source-access")
        bucket, _, master = vod["row"]["path"].removeprefix("s3://").partition("/")
        client.create_bucket(Bucket=bucket)
        user.environment |= (
            {"ARCHIVER_SOURCE_ACCESS": server.url(bucket)}
            if by_setting
            else {"AWS_ENDPOINT_URL": server.endpoint_url}
        )
        door = FileSideDoor(tmp_path / "archive")

        without = user.runs_once()  # the bucket is there, and empty

        assert without.json["states"] == {"archived": 1, "needs_source_access": 1}, without.stderr
        assert vod["id"] not in manifests(door)

        for file in vod["objects"]:
            body = simulator.content(vod["id"], file["path"])
            client.put_object(Bucket=bucket, Key=f"{master.rpartition('/')[0]}/{file['path']}", Body=body)
        keys = _keys(client, bucket)

        again = user.types("archive", vod["id"])
        result = user.runs_once()

        assert result.json["states"] == {"archived": 2}, again.text + result.stderr
        (truth,) = simulator.truth(vod["id"])
        check_asset(door, truth)
        assert all(not item.get("rewritten") for item in manifests(door)[vod["id"]]["objects"])
        assert _keys(client, bucket) == keys, "nothing is written where we only read"


def _keys(client: S3Client, bucket: str) -> set[str]:
    return {row["Key"] for row in client.list_objects_v2(Bucket=bucket)["Contents"]}
