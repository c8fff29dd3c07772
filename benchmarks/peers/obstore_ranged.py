"""obstore: Rust's object_store from Python, ranges in threads, its own multipart uploads.

It reads the listable guise of the source: a store by URL has no place for a query.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import obstore
from obstore.store import GCSStore, HTTPStore, S3Store

task = json.load(sys.stdin)
options = {"allow_http": True, "allow_invalid_certificates": True, "timeout": "60s"}
source = HTTPStore.from_url(task["open_url"], client_options=options)
if task["sink"] == "gcs":  # its parts go by the XML API: several at a time, unlike the chunks of a session
    # a token, for with `skip_signature` it still asks the metadata server of a cloud's machine for one
    sink = GCSStore("bucket", base_url=task["sink_url"], bearer_token=task["token"], client_options=options)
else:
    sink = S3Store(
        "bucket",
        endpoint=task["sink_url"],
        region="us-east-1",
        virtual_hosted_style_request=False,
        unsigned_payload=True,
        client_options=options,
    )
print(json.dumps({"ready": {"monotonic": time.monotonic(), "cpu": time.process_time()}}), flush=True)  # noqa: T201 - measure.Usage
connections, part_bytes = task["connections"], task["part_bytes"]


def copy_small(path: str) -> None:
    obstore.put(sink, f"obstore/{path}", source.get(path).bytes(), use_multipart=False)


def copy_large(pool: ThreadPoolExecutor, path: str, ahead: int) -> None:
    size = source.head(path)["size"]

    def parts() -> Iterator[bytes]:
        coming, start = deque(), 0
        while coming or start < size:
            while start < size and len(coming) < ahead:
                end = min(start + part_bytes, size)
                coming.append(pool.submit(source.get_range, path, start=start, end=end))
                start = end
            yield coming.popleft().result()

    obstore.put(sink, f"obstore/{path}", parts(), chunk_size=part_bytes, max_concurrency=max(2, ahead))


with ThreadPoolExecutor(connections) as workers:
    if task["form"] == "many":
        list(workers.map(copy_small, task["paths"]))
    else:
        files_at_once = min(8, len(task["paths"]))
        with ThreadPoolExecutor(files_at_once) as files:
            share = connections // files_at_once
            list(files.map(lambda path: copy_large(workers, path, share), task["paths"]))
