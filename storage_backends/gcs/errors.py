"""Translate the errors of Google's libraries and service to ours. Six sources: the status and reason of a response,
google.api_core, google-auth, google-cloud-storage (whose two classes come from google-resumable-media), requests (with
urllib3 below it), and our own HTTP client. tests/storage_backends/test_gcs_errors.py enumerates them.

The text of most holds the whole URL; that of a session is a bearer token. It is neither repeated nor chained.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests
import urllib3.exceptions
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage import exceptions as library_errors
from google.resumable_media import common as media_errors

from archiver.http import trust
from archiver.http.errors import HttpError, InvalidRequest
from archiver.http.retry_after import retry_after
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    CredentialsMissing,
    DestinationFull,
    DestinationRefuses,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)
from storage_backends.operation import Operation
from storage_backends.vendor_faults import came_through, unreadable

# reasons of a 403: https://cloud.google.com/storage/docs/json_api/v1/status-codes
_RATE_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded", "quotaExceeded"}
_FULL_REASONS = {"storageQuotaExceeded"}
_CHECKSUM_WORDS = ("crc32c", "md5", "checksum", "hash")

_ADVICE: dict[type[StorageError], str] = {
    AccessDenied: "check GOOGLE_APPLICATION_CREDENTIALS and that the account may storage.objects.create, get, list and "
    "delete in this bucket",
    DestinationFull: "free space or raise the quota",
}

_UNREACHABLE = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ConnectionError,  # base of ProxyError, SSLError, ConnectTimeout
    requests.exceptions.ContentDecodingError,
    requests.exceptions.RetryError,
    requests.exceptions.StreamConsumedError,
    requests.exceptions.Timeout,
    requests.exceptions.TooManyRedirects,
    requests.exceptions.UnrewindableBodyError,
    requests.exceptions.JSONDecodeError,
    urllib3.exceptions.HTTPError,
    auth_errors.TransportError,
    auth_errors.TimeoutError,
    auth_errors.ResponseError,
    api_errors.RetryError,  # of the library's own retries
    ConnectionError,  # raised by the library for a download that ended early
)
_PACKAGES = frozenset({"google", "requests", "urllib3"})
_ANSWERED = (api_errors.GoogleAPICallError, media_errors.InvalidResponse, library_errors.InvalidResponse)
_CORRUPTED = (media_errors.DataCorruption, library_errors.DataCorruption)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. `header` returns a header by its name in lower case."""

    status: int
    header: Callable[[str], str | None]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @classmethod
    def of(cls, response: requests.Response) -> Answer:
        return cls(response.status_code, response.headers.get, response.content or b"")


def reason_of(answer: Answer) -> tuple[str, str]:
    """Return Google's `reason` and message; empty where the body is not Google's."""
    try:
        body: Any = json.loads(answer.body)
        error = body["error"]
        return str(error["errors"][0]["reason"]), str(error["message"])[:200].partition("?")[0]
    except (ValueError, KeyError, IndexError, TypeError):
        return "", ""


def refused(answer: Answer, doing: object) -> StorageError:
    """Return an unsuccessful response as one of our errors. A 404 is ObjectMissing: the caller knows what is
    missing."""
    reason, message = reason_of(answer)
    kind = kind_of(answer.status, reason, message)
    # enough of the id to find the request; all of it would be the upload id of a session
    request_id = (answer.header("x-guploader-uploadid") or "-")[:24]
    text = f"{doing}: {answer.status} {reason} {message}, request {request_id}"
    asked = retry_after(answer.header) if answer.status in (429, 503) else None
    return kind(
        f"{text}; {_ADVICE[kind]}" if kind in _ADVICE else text, status=answer.status, retry_after=asked
    )


def kind_of(status: int, reason: str, message: str) -> type[StorageError]:
    kind: type[StorageError]
    if status == 401 or (status == 403 and reason not in _RATE_REASONS | _FULL_REASONS):
        kind = AccessDenied
    elif reason in _FULL_REASONS or status == 507:
        kind = DestinationFull
    elif status in (403, 408, 409, 425, 429) or (status >= 500 and status not in (501, 505)):
        kind = TransientStorageError
    elif status == 404:
        kind = ObjectMissing
    elif status == 412:
        kind = ObjectExists
    elif status == 400 and any(word in message.lower() for word in _CHECKSUM_WORDS):
        kind = ChecksumRejected
    else:
        kind = StorageError
    return kind


def translate(error: Exception, doing: object) -> StorageError:
    """Return a library's exception as one of ours; anything unknown counts as a defect of ours (a plain
    StorageError)."""
    name = type(error).__name__
    if isinstance(error, _ANSWERED):
        answer = error.response
        if isinstance(answer, requests.Response):
            return refused(Answer.of(answer), doing)
        status = getattr(error, "code", None) or 0
        return kind_of(status, "", "")(f"{doing}: {name}, status {status}", status=status or None)
    if isinstance(error, _CORRUPTED):
        return ChecksumRejected(f"{doing}: {name}: the bytes that arrived are not those that were sent")
    if (reason := trust.rejection(error)) is not None:
        return DestinationRefuses(f"{doing}: {trust.rejected(reason)}")
    if isinstance(error, trust.UnusableCaFile):
        return DestinationRefuses(f"{doing}: {error}")
    if isinstance(error, HttpError) and not isinstance(error, InvalidRequest):
        return TransientStorageError(f"{doing}: {error}")
    if isinstance(error, _UNREACHABLE) or (
        isinstance(error, auth_errors.GoogleAuthError) and error.retryable
    ):
        return TransientStorageError(f"{doing}: {name}: the server could not be reached, or cut its response")
    if isinstance(error, auth_errors.GoogleAuthError):
        kind = CredentialsMissing if isinstance(error, auth_errors.DefaultCredentialsError) else AccessDenied
        return kind(
            f"{doing}: {name}: no usable Google credentials; set GOOGLE_APPLICATION_CREDENTIALS, run "
            "`gcloud auth application-default login`, or give the machine a service account"
        )
    return StorageError(f"{doing}: {name}: this request cannot be made")


@contextlib.contextmanager
def translated(doing: Operation) -> Iterator[None]:
    """Raise the libraries' errors as ours, with the fields of `doing`."""
    with doing:
        try:
            yield
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            auth_errors.GoogleAuthError,
            api_errors.GoogleAPIError,
            *_ANSWERED,
            *_CORRUPTED,
            library_errors.InvalidPathError,
            ConnectionError,
            HttpError,
            trust.UnusableCaFile,
        ) as error:
            raise translate(error, doing) from None  # its text holds the URL
        except (StorageError, MemoryError):
            raise
        except Exception as error:
            if not came_through(error, _PACKAGES):
                raise
            raise TransientStorageError(unreadable(error, doing)) from None
