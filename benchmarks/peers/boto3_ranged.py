"""What a careful team would write: urllib3 ranges in threads, parts by boto3 as it comes, no CRC32C of the whole."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import urllib3
from botocore.config import Config

task = json.load(sys.stdin)
connections, part_bytes = task["connections"], task["part_bytes"]
s3 = boto3.client("s3", endpoint_url=task["sink_url"], config=Config(max_pool_connections=connections))
web = urllib3.PoolManager(maxsize=connections, ca_certs=task["ca_file"], timeout=60)

print(json.dumps({"ready": {"monotonic": time.monotonic(), "cpu": time.process_time()}}), flush=True)  # noqa: T201 - measure.Usage


def url(path: str) -> str:
    return f"{task['signed_url']}/{path}?{task['token']}"


def get(path: str, start: int, size: int) -> bytes:
    answer = web.request("GET", url(path), headers={"Range": f"bytes={start}-{start + size - 1}"})
    assert answer.status == 206, answer.status
    return answer.data


def size_of(path: str) -> int:
    answer = web.request("GET", url(path), headers={"Range": "bytes=0-0"})
    return int(answer.headers["Content-Range"].rpartition("/")[2])


def copy_small(path: str) -> None:
    answer = web.request("GET", url(path))
    assert answer.status == 200, answer.status
    s3.put_object(Bucket="bucket", Key=f"ranged/{path}", Body=answer.data)


def copy_large(pool: ThreadPoolExecutor, path: str) -> None:
    size, address = size_of(path), {"Bucket": "bucket", "Key": f"ranged/{path}"}
    upload_id = s3.create_multipart_upload(**address)["UploadId"]

    def part(number: int) -> dict[str, object]:
        start = (number - 1) * part_bytes
        data = get(path, start, min(part_bytes, size - start))
        sent = s3.upload_part(**address, UploadId=upload_id, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": sent["ETag"]}

    parts = list(pool.map(part, range(1, -(-size // part_bytes) + 1)))
    s3.complete_multipart_upload(**address, UploadId=upload_id, MultipartUpload={"Parts": parts})


with ThreadPoolExecutor(connections) as workers:
    if task["form"] == "many":
        list(workers.map(copy_small, task["paths"]))
    else:
        with ThreadPoolExecutor(8) as files:
            list(files.map(lambda path: copy_large(workers, path), task["paths"]))
