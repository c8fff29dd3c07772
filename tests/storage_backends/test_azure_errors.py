"""Every error of azure.core, azure-identity and our own HTTP client is a StorageError of a chosen class; and so is
every response of the service."""

from __future__ import annotations

import inspect
from datetime import timedelta

import azure.identity
import pytest
from azure.core import exceptions as azure_errors

from archiver.http import errors as http_errors
from storage_backends.azure.errors import Answer, refused, translated
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

DOING = Operation("put", "az://account/container", "k", "storing")
SECRET_URL = "https://account.blob.core.windows.net/c/k?sv=1&sig=secret"


def words(text: str) -> list[str]:
    return text.split()


LIBRARY: dict[str, type[StorageError]] = {
    **dict.fromkeys(
        words("""
        AzureError DecodeError IncompleteReadError ResponseNotReadError ServiceRequestError
        ServiceRequestTimeoutError ServiceResponseError ServiceResponseTimeoutError StreamClosedError
        StreamConsumedError
    """),
        TransientStorageError,
    ),
    "ClientAuthenticationError": AccessDenied,
    **dict.fromkeys(  # without a response: this library cannot have sent it
        words("""
        HttpResponseError ResourceExistsError ResourceModifiedError ResourceNotFoundError
        ResourceNotModifiedError TooManyRedirectsError ODataV4Error
    """),
        StorageError,
    ),
}

HTTP: dict[str, type[StorageError]] = {
    **dict.fromkeys(
        ["BrokenOff", "CouldNotConnect", "HttpError", "InvalidResponse", "TooLong", "TooSlow"],
        TransientStorageError,
    ),
    "CertificateRejected": DestinationRefuses,
    "InvalidRequest": StorageError,  # nothing was sent, nor will it be the next time
}

ANSWERS: list[tuple[int, str, type[StorageError]]] = [
    (401, "InvalidAuthenticationInfo", AccessDenied),
    (403, "AuthenticationFailed", AccessDenied),
    (403, "AuthorizationPermissionMismatch", AccessDenied),
    (403, "AccountIsDisabled", AccessDenied),
    (403, "SomethingNew", AccessDenied),
    (409, "BlobImmutableDueToPolicy", AccessDenied),
    (409, "PublicAccessNotPermitted", AccessDenied),
    (412, "LeaseIdMissing", AccessDenied),
    (404, "ContainerNotFound", BucketMissing),
    (409, "ContainerBeingDeleted", BucketMissing),
    (400, "InvalidResourceName", BucketMissing),
    (507, "", DestinationFull),
    (404, "BlobNotFound", ObjectMissing),
    (404, "", ObjectMissing),
    (409, "BlobAlreadyExists", ObjectExists),
    (412, "ConditionNotMet", ObjectExists),
    (409, "BlobArchived", ObjectCold),
    (409, "BlobBeingRehydrated", ObjectCold),
    (400, "InvalidBlockList", UploadGone),
    (400, "InvalidBlobOrBlock", UploadGone),
    (400, "Md5Mismatch", ChecksumRejected),
    (400, "InvalidUri", InvalidKey),
    (408, "", TransientStorageError),
    (429, "", TransientStorageError),
    (500, "InternalError", TransientStorageError),
    (500, "OperationTimedOut", TransientStorageError),
    (503, "ServerBusy", TransientStorageError),
    (502, "", TransientStorageError),
    (409, "PendingCopyOperation", TransientStorageError),
    (501, "", StorageError),
    (400, "InvalidHeaderValue", StorageError),
    (409, "InvalidBlobType", StorageError),
    (413, "RequestBodyTooLarge", StorageError),
    (302, "", StorageError),
]


def classes(module: object, base: type[Exception]) -> dict[str, type[Exception]]:
    members = inspect.getmembers(module, inspect.isclass)
    return {name: found for name, found in members if issubclass(found, base)}


def answer(status: int, code: str, body: bytes = b"", **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"x-ms-error-code": code, **given}.get, body)


def caught(error: Exception) -> StorageError:
    with pytest.raises(StorageError) as raised, translated(DOING):
        raise error
    return raised.value


def test_every_class_of_azure_core_is_in_the_table() -> None:
    assert set(classes(azure_errors, azure_errors.AzureError)) == set(LIBRARY)


@pytest.mark.parametrize("name", LIBRARY)
def test_each_class_of_azure_core_has_its_error_and_shows_no_url(name: str) -> None:
    kind = getattr(azure_errors, name)
    error = kind.__new__(kind)
    Exception.__init__(error, SECRET_URL)
    error.response = None

    seen = caught(error)

    assert type(seen) is LIBRARY[name]
    assert "secret" not in f"{seen} {seen.__cause__}"
    assert (seen.store, seen.key, seen.operation) == (DOING.store, "k", "put")


def test_azure_identity_adds_two_errors_of_which_one_says_that_nothing_was_found() -> None:
    found = classes(azure.identity, Exception)

    assert set(found) == {"AuthenticationRequiredError", "CredentialUnavailableError"}
    assert (
        type(caught(azure.identity.CredentialUnavailableError("no managed identity"))) is CredentialsMissing
    )
    nowhere = azure_errors.ClientAuthenticationError(
        "DefaultAzureCredential failed to retrieve a token from ..."
    )
    assert type(caught(nowhere)) is CredentialsMissing
    assert type(caught(azure_errors.ClientAuthenticationError("AADSTS7000215"))) is AccessDenied


@pytest.mark.parametrize("name", HTTP)
def test_each_error_of_our_own_client_has_its_error(name: str) -> None:
    kind = getattr(http_errors, name)

    assert type(caught(kind("as it says"))) is HTTP[name]


@pytest.mark.parametrize(("status", "code", "kind"), ANSWERS, ids=str)
def test_each_response_of_the_service_has_its_error(status: int, code: str, kind: type[StorageError]) -> None:
    error = refused(answer(status, code, x_ms_request_id="r-1"), DOING)

    assert type(error) is kind
    assert error.status == status
    assert str(error).startswith(f"storing 'k' in az://account/container: {status} {code}")
    assert "r-1" in str(error)


def test_what_the_service_asks_to_wait_for_is_kept() -> None:
    error = refused(answer(503, "ServerBusy", retry_after="17"), DOING)

    assert error.retry_after == timedelta(seconds=17)


def test_the_code_and_message_are_read_from_the_body_and_the_message_ends_before_a_query() -> None:
    body = (
        b"<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code><Message>Signature of /c/k?sig=secret did not "
        b"match.\nRequestId:1</Message></Error>"
    )

    error = refused(Answer(403, lambda _: None, body), DOING)

    assert "403 AuthenticationFailed Signature of /c/k, request -" in str(error)
    assert "secret" not in str(error)
    assert "AZURE_STORAGE_SAS_TOKEN" in str(error), "and what to do"
