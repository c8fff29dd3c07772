"""Stores seen without our code: raw SDKs, raw files, raw HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from types_boto3_s3.client import S3Client


class S3SideDoor:
    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self.client, self.bucket, self.prefix = client, bucket, prefix

    def stored_keys(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return {
            entry["Key"].removeprefix(self.prefix) for page in pages for entry in page.get("Contents", [])
        }

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)


class FileSideDoor:
    def __init__(self, root: Path) -> None:
        self.root = root

    def stored_keys(self) -> set[str]:
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)) for path in files if ".uploads" not in path.parts}

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(data)


class GcsSideDoor:
    def __init__(self, endpoint_url: str, bucket: str, prefix: str) -> None:
        self.endpoint_url, self.bucket, self.prefix = endpoint_url, bucket, prefix

    def stored_keys(self) -> set[str]:
        return {entry["name"].removeprefix(self.prefix) for entry in self._entries()}

    def _entries(self) -> Iterator[dict[str, str]]:
        query = urlencode({"prefix": self.prefix, "maxResults": 5000})
        with urlopen(f"{self.endpoint_url}/storage/v1/b/{self.bucket}/o?{query}", timeout=10) as answer:
            yield from json.load(answer).get("items", [])

    def read(self, key: str) -> bytes:
        name = quote(self.prefix + key, safe="")
        url = f"{self.endpoint_url}/storage/v1/b/{self.bucket}/o/{name}?alt=media"
        try:
            with urlopen(url, timeout=10) as answer:
                data: bytes = answer.read()
        except HTTPError as error:
            error.close()
            raise KeyError(key) from None
        return data

    def write(self, key: str, data: bytes) -> None:
        query = urlencode({"uploadType": "media", "name": self.prefix + key})
        request = Request(
            f"{self.endpoint_url}/upload/storage/v1/b/{self.bucket}/o?{query}",
            data=data,
            headers={"Content-Type": "application/octet-stream"},
        )
        with urlopen(request, timeout=10) as answer:
            answer.read()


class AzureSideDoor:
    def __init__(self, client: ContainerClient, prefix: str) -> None:
        self.client, self.prefix = client, prefix

    def stored_keys(self) -> set[str]:
        return {
            name.removeprefix(self.prefix)
            for name in self.client.list_blob_names(name_starts_with=self.prefix)
        }

    def read(self, key: str) -> bytes:
        return self.client.download_blob(self.prefix + key).readall()

    def write(self, key: str, data: bytes) -> None:
        self.client.upload_blob(self.prefix + key, data, overwrite=True)
