"""The data path to Google Cloud Storage: uploads in one request, and the requests of resumable sessions.

google-cloud-storage spends about 1.2 ms of CPU on a small upload, most of what a small object costs, and needs a
waiting thread. So these requests go over our own HTTP client. Endpoint and credentials are the library's: a request
carries what they add to the library's own.

Only a 401 is retried, once, with a new token.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from requests.utils import get_environ_proxies, select_proxy

from archiver.http.options import Options, Timeouts
from archiver.http.store_sessions import StoreSessions
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import blocking
from storage_backends.base import Buffer
from storage_backends.errors import DestinationRefuses, StorageError
from storage_backends.gcs.errors import Answer

Headers = dict[str, str]

# as in bucket.py, for the library
_TIMEOUTS = Timeouts(connect=timedelta(seconds=10), silence=timedelta(seconds=60))
_TOKEN_TIMEOUT_SECONDS = 60.0  # google-auth's own default is 120
_ANSWER_BYTES = 64 * 1024
# objects up to this size are copied into the request, which is faster than sending pieces
_JOINED_BYTES = 256 * 1024
_CONTENT_TYPE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")


class GcsRequests:
    """One for each process. `client`: the library's. `ca_file`: the trusted authorities."""

    def __init__(self, client: Any, ca_file: Path) -> None:
        http = client._http  # noqa: SLF001 # documented
        if http.is_mtls:
            raise DestinationRefuses(
                "Google Cloud Storage cannot be used with a client certificate: unset GOOGLE_API_USE_CLIENT_CERTIFICATE"
            )
        self._origin = client.api_endpoint
        self._credentials = http.credentials
        self._ask_for_tokens = partial(http._auth_request, timeout=_TOKEN_TIMEOUT_SECONDS)  # noqa: SLF001
        self._renewing = threading.Lock()
        options = Options(
            ca_file=ca_file,
            timeouts=_TIMEOUTS,
            user_agent=client._connection.user_agent,  # noqa: SLF001
            proxy=select_proxy(self._origin, get_environ_proxies(self._origin)) or "",
        )
        self._sessions = StoreSessions(options)

    async def insert(
        self, bucket: str, resource: Mapping[str, Any], data: Buffer, query: Mapping[str, str]
    ) -> Answer:
        """Upload an object with its metadata in one request. `query`: further parameters, such as ifGenerationMatch.

        Raises HttpError and google-auth's errors. https://cloud.google.com/storage/docs/json_api/v1/objects/insert
        """
        more = f"&{urlencode(query)}" if query else ""
        url = f"{self._origin}/upload/storage/v1/b/{bucket}/o?uploadType=multipart{more}"
        return await self._send(partial(_related, url, resource, data), len(data))

    async def session(self, method: str, uri: str, headers: Mapping[str, str], data: Buffer) -> Answer:
        """Send one request to a resumable session, whose URI is a SECRET. Raises HttpError and google-auth's errors."""
        body = data if isinstance(data, bytes) else (memoryview(data),)
        return await self._send(
            lambda with_token: Request(uri, {**headers, **with_token}, method, body), len(data)
        )

    def close(self) -> None:
        self._sessions.close()

    async def _send(self, make: Callable[[Headers], Request], size_bytes: int) -> Answer:
        if not self._credentials.valid:
            await blocking(self._ensure_token)
        token = self._credentials.token
        answer = await self._once(make, size_bytes)
        if answer.status == 401 and token is not None:  # revoked, or this machine's clock is slow
            await blocking(partial(self._renew, token))
            answer = await self._once(make, size_bytes)
        return answer

    async def _once(self, make: Callable[[Headers], Request], size_bytes: int) -> Answer:
        session = self._sessions.sending(size_bytes)
        transfer = await Transfer(
            session, lambda: make(self._authorization()), lambda coming: coming.limit(_ANSWER_BYTES)
        )
        assert transfer.head is not None, "a transfer that ended well has a head"
        return Answer(transfer.head.status, transfer.head.headers.get, transfer.take_body())

    def _authorization(self) -> Headers:
        """Return the headers that the credentials add to a request."""
        headers: Headers = {}
        self._credentials.apply(headers)
        return headers

    # -- these may block
    def _ensure_token(self) -> None:
        with self._renewing:  # one thread fetches it, and all that wait use it
            self._credentials.before_request(self._ask_for_tokens, "POST", self._origin, {})

    def _renew(self, refused_token: str) -> None:
        with self._renewing:
            if self._credentials.token == refused_token:
                self._credentials.refresh(self._ask_for_tokens)


def _related(url: str, resource: Mapping[str, Any], data: Buffer, with_token: Headers) -> Request:
    """Make a multipart/related request (RFC 2387): the resource, then the bytes."""
    content_type = resource["contentType"]
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise StorageError(
            f"an upload to Google Cloud Storage cannot carry the content type {content_type[:80]!r}"
        )
    boundary = secrets.token_hex(16)
    before = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(resource)}\r\n"
        f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n"
    ).encode("ascii")
    after = f"\r\n--{boundary}--\r\n".encode("ascii")
    headers = {"Content-Type": f"multipart/related; boundary={boundary}", **with_token}
    if len(data) <= _JOINED_BYTES:
        return Request(url, headers, "POST", b"".join((before, data, after)))
    media = data if isinstance(data, bytes) else memoryview(data)
    return Request(url, headers, "POST", (before, media, after))
