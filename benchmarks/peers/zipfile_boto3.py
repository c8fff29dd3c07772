"""The zip by hand: httpx to a file on the disk, zipfile, boto3 in threads."""

import json
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import boto3
import httpx
from botocore.config import Config

task = json.load(sys.stdin)
s3 = boto3.client(
    "s3", endpoint_url=task["sink_url"], config=Config(max_pool_connections=task["connections"])
)
print(json.dumps({"ready": {"monotonic": time.monotonic(), "cpu": time.process_time()}}), flush=True)  # noqa: T201 - measure.Usage
with tempfile.NamedTemporaryFile() as file:
    url = f"{task['signed_url']}/vod.zip?{task['token']}"
    with httpx.Client(verify=task["ca_file"] or True, timeout=60) as web, web.stream("GET", url) as response:
        response.raise_for_status()
        for chunk in response.iter_raw(1024 * 1024):
            file.write(chunk)
    file.flush()
    with zipfile.ZipFile(file.name) as archive, ThreadPoolExecutor(task["connections"]) as pool:

        def copy(name: str) -> None:
            s3.put_object(Bucket="bucket", Key=f"zipfile/{name}", Body=archive.read(name))

        list(pool.map(copy, archive.namelist()))
