"""The data path to Azure Blob Storage: Put Blob, Put Block, Put Block List and Get Blob over our own HTTP client.

azure-storage-blob would need a waiting thread for each request, retries some reads by itself, and reads a body three
times. Control calls use it all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from requests.utils import get_environ_proxies, select_proxy

from archiver.http.options import Options, Timeouts
from archiver.http.store_sessions import StoreSessions
from archiver.http.transfer import Request, Transfer
from storage_backends.azure.credentials import Credential
from storage_backends.azure.errors import Answer
from storage_backends.base import Buffer

VERSION = "2023-11-03"  # of the service's protocol: the oldest with all that is used here
CONNECT_SECONDS, SILENCE_SECONDS = 10, 60
_TIMEOUTS = Timeouts(connect=timedelta(seconds=CONNECT_SECONDS), silence=timedelta(seconds=SILENCE_SECONDS))
_ANSWER_BYTES = 64 * 1024
_NO_LIMIT = 2**62


class AzureRequests:
    """Requests for the blobs of one container. Retries nothing. One for each process. `ca_file`: the trusted
    authorities."""

    def __init__(self, container_url: str, credential: Credential, ca_file: Path) -> None:
        self._container_url = container_url
        self._credential = credential
        options = Options(
            ca_file=ca_file,
            timeouts=_TIMEOUTS,
            user_agent="recording-archiver",
            proxy=select_proxy(container_url, get_environ_proxies(container_url)) or "",
        )
        self._sessions = StoreSessions(options)

    async def put(self, blob: str, query: str, headers: Mapping[str, str], data: Buffer) -> Answer:
        """Send `data` to a blob. `query`: `comp=block&...`. Raises HttpError and azure-identity's errors."""
        body = data if isinstance(data, bytes) else (memoryview(data),)
        headers = {"Content-Type": "application/octet-stream", **headers}
        return await self._send("PUT", blob, query, headers, body, _ANSWER_BYTES)

    async def get(self, blob: str, headers: Mapping[str, str], max_bytes: int | None) -> Answer:
        """Read a blob. Raises HttpError, also for a body of more than `max_bytes`, and azure-identity's errors."""
        return await self._send("GET", blob, "", headers, None, _NO_LIMIT if max_bytes is None else max_bytes)

    def close(self) -> None:
        self._sessions.close()

    async def _send(
        self,
        method: str,
        blob: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes | tuple[memoryview, ...] | None,
        max_bytes: int,
    ) -> Answer:
        url = f"{self._container_url}/{quote(blob, safe='/~')}"
        length_bytes = sum(map(len, body)) if isinstance(body, tuple) else len(body or b"")

        def make() -> Request:
            given = {"x-ms-version": VERSION, **headers}
            signed_url, signed = self._credential.authorize(
                method, f"{url}?{query}" if query else url, given, length_bytes
            )
            return Request(signed_url, signed, method, body)

        def bound(coming: Transfer) -> None:
            coming.limit(max_bytes if coming.status < 300 else _ANSWER_BYTES)

        await self._credential.ready()
        session = self._sessions.reading if body is None else self._sessions.sending(length_bytes)
        transfer = await Transfer(session, make, bound)
        assert transfer.head is not None, "a transfer that ended well has a head"
        return Answer(transfer.status, transfer.head.headers.get, transfer.take_body())
