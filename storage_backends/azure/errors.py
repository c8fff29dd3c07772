"""Translate the errors of Azure's service and libraries to ours. Three sources: status and error code of a response,
azure.core (one base class: AzureError), and our own HTTP client. tests/storage_backends/test_azure_errors.py enumerates
them.

The text of some holds a URL with a shared access signature. It is neither repeated nor chained.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import unescape

from azure.core import exceptions as azure_errors

from archiver.http import trust
from archiver.http.errors import HttpError, InvalidRequest
from archiver.http.retry_after import retry_after
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumRejected,
    CredentialsMissing,
    DestinationFull,
    DestinationRefuses,
    InvalidKey,
    ObjectCold,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.operation import Operation
from storage_backends.vendor_faults import came_through, unreadable

# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes, and common-rest-api-error-codes
_CODES: dict[type[StorageError], tuple[str, ...]] = {
    AccessDenied: (
        "AccountIsDisabled", "AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch",
        "AuthorizationProtocolMismatch", "AuthorizationResourceTypeMismatch", "AuthorizationServiceMismatch",
        "AuthorizationSourceIPMismatch", "BlobImmutableDueToPolicy", "InsufficientAccountPermissions",
        "InvalidAuthenticationInfo", "KeyBasedAuthenticationNotPermitted", "LeaseIdMissing",
        "NoAuthenticationInformation", "PublicAccessNotPermitted", "UnauthorizedBlobOverwrite",
    ),
    BucketMissing: ("ContainerBeingDeleted", "ContainerDisabled", "ContainerNotFound", "InvalidResourceName"),
    DestinationFull: ("AccountLimitExceeded", "InsufficientStorage"),
    TransientStorageError: (
        "AccountBeingCreated", "InternalError", "OperationTimedOut", "PendingCopyOperation", "ServerBusy",
        "SystemInUse",
    ),
    ObjectExists: ("BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"),
    ObjectMissing: ("BlobNotFound", "ResourceNotFound"),
    ObjectCold: ("BlobArchived", "BlobBeingRehydrated"),
    UploadGone: ("InvalidBlobOrBlock", "InvalidBlockId", "InvalidBlockList"),
    ChecksumRejected: ("Crc64Mismatch", "InvalidMd5", "Md5Mismatch"),
    InvalidKey: ("InvalidUri", "OutOfRangeInput"),
}  # fmt: skip
_BY_CODE = {code: kind for kind, codes in _CODES.items() for code in codes}

_ADVICE: dict[type[StorageError], str] = {
    AccessDenied: "check AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_KEY or the role of "
    "the identity (Storage Blob Data Contributor), the account's firewall, and this machine's clock",
    BucketMissing: "create the container, or correct the destination",
    DestinationFull: "free space or raise the account's limit",
    ObjectCold: "it is in the archive tier: restore it first (`archiver restore --thaw`)",
}
_SAID = re.compile(rb"<(Code|Message)>([^<]*)<")
_MD5_WORDS = re.compile("md5|checksum", re.IGNORECASE)
_PACKAGES = frozenset({"azure", "msal", "requests", "urllib3"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. `header` returns a header by its name in lower case."""

    status: int
    header: Callable[[str], str | None]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """Azure's error code; empty where something else answered."""
        return self.header("x-ms-error-code") or self._said(b"Code")

    @property
    def message(self) -> str:
        return (self._said(b"Message").splitlines() or [""])[0][:200].partition("?")[0]

    def _said(self, name: bytes) -> str:
        for found, text in _SAID.findall(self.body[:4096]):
            if found == name:
                return unescape(text.decode("utf-8", "replace"))
        return ""


def refused(answer: Answer, doing: object) -> StorageError:
    """Return an unsuccessful response as one of our errors."""
    kind = kind_of(answer.status, answer.code, answer.message)
    request_id = answer.header("x-ms-request-id") or "-"
    text = f"{doing}: {answer.status} {answer.code} {answer.message}, request {request_id}"
    asked = retry_after(answer.header) if answer.status in (429, 503) else None
    return kind(
        f"{text}; {_ADVICE[kind]}" if kind in _ADVICE else text, status=answer.status, retry_after=asked
    )


def kind_of(status: int, code: str, message: str = "") -> type[StorageError]:
    """Classify by the error code if it is known, else by status."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status == 400 and _MD5_WORDS.search(message):  # Azurite's code for it is InvalidOperation
        return ChecksumRejected
    if status in (401, 403):
        return AccessDenied
    if status == 404:
        return ObjectMissing
    if status == 412:
        return ObjectExists
    if status == 507:
        return DestinationFull
    if status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
        return TransientStorageError
    return StorageError


def translate(error: Exception, doing: object) -> StorageError:
    """Return a library's exception as one of ours; anything unknown counts as a defect of ours (a plain
    StorageError)."""
    name = type(error).__name__
    if (reason := trust.rejection(error)) is not None:
        return DestinationRefuses(f"{doing}: {trust.rejected(reason)}")
    if isinstance(error, trust.UnusableCaFile):
        return DestinationRefuses(f"{doing}: {error}")
    if isinstance(error, HttpError):
        kind = StorageError if isinstance(error, InvalidRequest) else TransientStorageError
        return kind(f"{doing}: {error}")
    # azure-identity's, which is imported only where it is used
    if name == "CredentialUnavailableError" or "DefaultAzureCredential failed" in "".join(
        map(str, error.args)
    ):
        return CredentialsMissing(
            f"{doing}: no credentials for Azure were found; set AZURE_STORAGE_CONNECTION_STRING, "
            "AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY, or give the machine a managed identity"
        )
    if isinstance(error, azure_errors.HttpResponseError) and not isinstance(error, azure_errors.DecodeError):
        response = error.response
        if response is not None:
            code = getattr(error, "error_code", None)
            return refused(_answer_of(response, str(getattr(code, "value", code) or "")), doing)
        if isinstance(error, azure_errors.ClientAuthenticationError):
            return AccessDenied(f"{doing}: {name}: {_ADVICE[AccessDenied]}")
        return StorageError(f"{doing}: {name}: this request cannot be made")
    if isinstance(error, azure_errors.AzureError):
        # ServiceRequestError, ServiceResponseError and their kinds; a stream that was cut
        return TransientStorageError(f"{doing}: {name}: the server could not be reached, or cut its response")
    return StorageError(f"{doing}: {name}: this request cannot be made")


def _answer_of(response: object, code: str) -> Answer:
    headers = {str(n).lower(): str(v) for n, v in getattr(response, "headers", {}).items()}
    if code:
        headers["x-ms-error-code"] = code
    return Answer(int(getattr(response, "status_code", 0) or 0), headers.get, b"")


@contextlib.contextmanager
def translated(doing: Operation) -> Iterator[None]:
    """Raise the libraries' errors as ours, with the fields of `doing`."""
    with doing:
        try:
            yield
        except (azure_errors.AzureError, HttpError, trust.UnusableCaFile) as error:
            raise translate(error, doing) from None  # its text may hold the URL
        except (StorageError, MemoryError):
            raise
        except Exception as error:
            if not came_through(error, _PACKAGES):
                raise
            raise TransientStorageError(unreadable(error, doing)) from None
