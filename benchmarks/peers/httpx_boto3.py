"""What most would write: an httpx stream into boto3's upload_fileobj, threads for many files."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import httpx
from botocore.config import Config

task = json.load(sys.stdin)
workers = task["connections"] if task["form"] == "many" else min(8, len(task["paths"]))
s3 = boto3.client("s3", endpoint_url=task["sink_url"], config=Config(max_pool_connections=workers * 10))
web = httpx.Client(
    verify=task["ca_file"] or True,
    limits=httpx.Limits(max_connections=workers, max_keepalive_connections=workers),
    timeout=60,
)

print(json.dumps({"ready": {"monotonic": time.monotonic(), "cpu": time.process_time()}}), flush=True)  # noqa: T201 - measure.Usage


class Stream:
    def __init__(self, response: httpx.Response) -> None:
        self.chunks = response.iter_raw(1024 * 1024)
        self.rest = b""

    def read(self, size: int = -1) -> bytes:
        parts, have = [self.rest], len(self.rest)
        while size < 0 or have < size:
            chunk = next(self.chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        if 0 <= size < len(data):
            self.rest = data[size:]
            return data[:size]
        self.rest = b""
        return data


def copy(path: str) -> None:
    with web.stream("GET", f"{task['signed_url']}/{path}?{task['token']}") as response:
        response.raise_for_status()
        s3.upload_fileobj(Stream(response), "bucket", f"httpx/{path}")


with ThreadPoolExecutor(workers) as pool:
    list(pool.map(copy, task["paths"]))
