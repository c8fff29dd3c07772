"""S3 Batch Operations, operation "Compute checksum": AWS reads objects of any class where they are, without a restore.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-compute-checksums.html. No server in the tests has it:
what is known of its requests is botocore's model, and of its report the example in AWS's documentation.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

from storage_backends import crc32c as crc
from storage_backends.base import ObjectKey
from storage_backends.optional import ChecksumJob, Computed

FIELDS = ("Bucket", "Key", "Ignore")
_REPORT = "Report_CSV_20180820"
_ENDED = {"Complete": True, "Failed": False, "Cancelled": False}


def line(bucket: str, key: str, note: str) -> bytes:
    """Return a line of the list of objects; `key` with the destination's prefix."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([bucket, quote(key), quote(note)])
    return out.getvalue().encode()


def note_of(text: str) -> str:
    """Return the note in a line. Raises ValueError."""
    rows = list(csv.reader([text]))
    if len(rows) != 1 or len(rows[0]) != len(FIELDS):
        raise ValueError("not a line of the list")
    return unquote(rows[0][2])


def request(
    role_arn: str, bucket: str, listing: str, listing_etag: str, reports: str, token: str
) -> dict[str, Any]:
    """Return the options of CreateJob. `listing` and `reports`: with the prefix of the destination. Asked with the same
    options and token again, AWS answers with the same job."""
    partition, account = role_arn.split(":")[1], role_arn.split(":")[4]
    arn = f"arn:{partition}:s3:::{bucket}"
    return {
        "AccountId": account,
        "ConfirmationRequired": False,
        "ClientRequestToken": token,
        "Description": "archiver verify --at-rest",
        "Priority": 10,
        "RoleArn": role_arn,
        "Operation": {
            "S3ComputeObjectChecksum": {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
        },
        "Manifest": {
            "Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": list(FIELDS)},
            "Location": {"ObjectArn": f"{arn}/{listing}", "ETag": listing_etag.strip('"')},
        },
        "Report": {
            "Bucket": arn,
            "Enabled": True,
            "Format": _REPORT,
            "Prefix": reports.rstrip("/"),
            "ReportScope": "AllTasks",
        },
    }


def job_of(answer: Mapping[str, Any]) -> ChecksumJob:
    """Read the answer of DescribeJob."""
    job = answer.get("Job", {})
    progress = job.get("ProgressSummary", {})
    reasons = [str(each.get("FailureReason")) for each in job.get("FailureReasons", [])]
    ended_at = job.get("TerminationDate")
    return ChecksumJob(
        job_id=str(job.get("JobId", "")),
        status=str(job.get("Status", "unknown")),
        succeeded=_ENDED.get(str(job.get("Status"))),
        total=int(progress.get("TotalNumberOfTasks", 0)),
        done=int(progress.get("NumberOfTasksSucceeded", 0)) + int(progress.get("NumberOfTasksFailed", 0)),
        why="; ".join(reasons) or str(job.get("StatusUpdateReason") or ""),
        ended_at=ended_at if isinstance(ended_at, datetime) else None,
    )


def computed(report: bytes, prefix: str) -> Iterator[tuple[ObjectKey, Computed]]:
    """Yield what a report says of each object under `prefix`; keys are without it. What cannot be understood is not
    computed."""
    for row in csv.reader(io.StringIO(report.decode("utf-8", "replace"))):
        if len(row) < 7:
            continue
        key, state, message = unquote(row[1]), row[3], ",".join(row[6:])
        if key.startswith(prefix):
            yield ObjectKey(key.removeprefix(prefix)), _computed(state, message)


def _computed(state: str, message: str) -> Computed:
    if state != "succeeded":
        return Computed(None, None, message or state)
    try:
        said = json.loads(message)
        if (said["checksumAlgorithm"], said["checksumType"]) != ("CRC32C", "FULL_OBJECT"):
            raise ValueError
        checksum = crc.from_base64(said["checksum_base64"])
        if checksum is None:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        return Computed(None, None, f"its report has no CRC32C of the whole object: {message[:200]}")
    return Computed(checksum, str(said.get("etag") or "").strip('"') or None, "")
