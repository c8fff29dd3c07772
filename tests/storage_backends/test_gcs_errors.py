"""Every error of google.api_core, google-auth, google-cloud-storage, requests, urllib3 and our own HTTP client is a
StorageError of a chosen class; and so is every response of the service."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta

import pytest
import requests
import urllib3.exceptions
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage import exceptions as library_errors
from google.resumable_media import common as media_errors

from archiver.http import errors as http_errors
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
from storage_backends.gcs.errors import Answer, refused, translate, translated
from storage_backends.operation import Operation

DOING = Operation("put", "gs://bucket", "k", "storing")

HTTP = {
    **dict.fromkeys(
        ["BrokenOff", "CouldNotConnect", "HttpError", "InvalidResponse", "TooLong", "TooSlow"],
        TransientStorageError,
    ),
    "CertificateRejected": DestinationRefuses,
    "InvalidRequest": StorageError,  # nothing was sent, nor will it be the next time
}


def words(text: str) -> list[str]:
    return text.split()


AUTH = {
    **dict.fromkeys(
        words("""
        ClientCertError GoogleAuthError MutualTLSChannelError OAuthError ReauthFailError
        ReauthSamlChallengeFailError RefreshError UserAccessTokenError
    """),
        AccessDenied,
    ),
    **dict.fromkeys(
        words("""
        DefaultCredentialsError InvalidOperation InvalidResource InvalidType InvalidValue MalformedError OSError
    """),
        CredentialsMissing,
    ),
    **dict.fromkeys(["TransportError", "ResponseError", "TimeoutError"], TransientStorageError),
}

API = {
    **dict.fromkeys(["Unauthorized", "Unauthenticated", "Forbidden", "PermissionDenied"], AccessDenied),
    **dict.fromkeys(
        words("""
        Aborted AlreadyExists BadGateway Conflict DeadlineExceeded GatewayTimeout InternalServerError
        ResourceExhausted RetryError ServiceUnavailable TooManyRequests
    """),
        TransientStorageError,
    ),
    "NotFound": ObjectMissing,
    "PreconditionFailed": ObjectExists,
    **dict.fromkeys(  # answers that are our own defect; and those that only other APIs of Google give
        words("""
        BadRequest Cancelled ClientError DataLoss DuplicateCredentialArgs FailedPrecondition GoogleAPICallError
        GoogleAPIError InvalidArgument LengthRequired MethodNotAllowed MethodNotImplemented
        MissingStatusHeaderError MovedPermanently NotModified OutOfRange Redirection RequestRangeNotSatisfiable
        ResumableTransferError ResumeIncomplete ServerError TemporaryRedirect TransferStalledError
        Unknown UnseekableStreamError UploadCancelledError
    """),
        StorageError,
    ),
}

LIBRARY = {  # by what it stands for; `InvalidResponse` is the answer it holds
    "InvalidResponse": TransientStorageError,
    "DataCorruption": ChecksumRejected,
    "InvalidPathError": StorageError,
}

REQUESTS = {
    **dict.fromkeys(
        words("""
        ChunkedEncodingError ConnectTimeout ConnectionError ContentDecodingError JSONDecodeError ProxyError
        ReadTimeout RetryError SSLError StreamConsumedError Timeout TooManyRedirects UnrewindableBodyError
    """),
        TransientStorageError,
    ),
    **dict.fromkeys(
        words("""
        HTTPError InvalidHeader InvalidJSONError InvalidProxyURL InvalidSchema InvalidURL MissingSchema
        RequestException URLRequired
    """),
        StorageError,
    ),
}


def classes(module: object, base: type[Exception]) -> dict[str, type[Exception]]:
    members = inspect.getmembers(module, inspect.isclass)
    return {name: found for name, found in members if issubclass(found, base)}


def made(kind: type[Exception], text: str = "https://host/session?upload_id=secret") -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    if isinstance(error, auth_errors.GoogleAuthError):
        error._retryable = False
    return error


def answer(status: int, reason: str = "", message: str = "as it says") -> Answer:
    return Answer.of(response(status, reason, message))


def response(status: int, reason: str = "", message: str = "as it says") -> requests.Response:
    made_answer = requests.Response()
    made_answer.status_code = status
    body = {"error": {"errors": [{"reason": reason, "message": message}], "message": message}}
    made_answer._content = json.dumps(body).encode()
    return made_answer


def test_every_class_of_google_api_core_is_in_the_table() -> None:
    assert set(classes(api_errors, api_errors.GoogleAPIError)) == set(API)


@pytest.mark.parametrize("name", API)
def test_each_class_of_google_api_core_has_its_error(name: str) -> None:
    error = made(getattr(api_errors, name))
    if isinstance(error, api_errors.GoogleAPICallError):
        error._response = None

    with pytest.raises(StorageError) as caught, translated(DOING):
        raise error

    assert type(caught.value) is API[name]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("status", "expected"), [(404, ObjectMissing), (503, TransientStorageError)])
def test_an_error_of_the_library_is_what_the_answer_in_it_is(
    status: int, expected: type[StorageError]
) -> None:
    asked = response(status, "because")
    asked.request = requests.Request("GET", "https://host/session?upload_id=secret").prepare()

    error = translate(api_errors.from_http_response(asked), DOING)  # type: ignore[no-untyped-call]

    assert type(error) is expected
    assert str(error) == f"{DOING}: {status} because as it says, request -"


def test_every_class_of_google_cloud_storage_is_in_the_table() -> None:
    assert set(classes(library_errors, Exception)) - {
        "InvalidResponseDynamicParent",
        "DataCorruptionDynamicParent",
    } == set(LIBRARY)


@pytest.mark.parametrize("package", [library_errors, media_errors])
@pytest.mark.parametrize("name", ["InvalidResponse", "DataCorruption"])
def test_each_class_of_the_library_and_of_its_predecessor_has_its_error(package: object, name: str) -> None:
    error = getattr(package, name)(response(503), "https://host/session?upload_id=secret")

    with pytest.raises(LIBRARY[name]) as caught, translated(DOING):
        raise error

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_path_that_the_library_refuses_is_a_defect_of_ours() -> None:
    with pytest.raises(StorageError) as caught, translated(DOING):
        raise library_errors.InvalidPathError("secret")

    assert type(caught.value) is LIBRARY["InvalidPathError"]
    assert "secret" not in str(caught.value)


def test_every_class_of_google_auth_is_in_the_table() -> None:
    assert set(classes(auth_errors, auth_errors.GoogleAuthError)) == set(AUTH)


@pytest.mark.parametrize("name", AUTH)
def test_each_class_of_google_auth_has_its_error(name: str) -> None:
    error = translate(made(getattr(auth_errors, name)), DOING)

    assert type(error) is AUTH[name]
    assert "secret" not in str(error)


def test_credentials_that_may_be_renewed_later_are_transient() -> None:
    error = auth_errors.RefreshError("metadata server busy", retryable=True)  # type: ignore[no-untyped-call]

    assert type(translate(error, DOING)) is TransientStorageError


def test_every_class_of_requests_is_in_the_table() -> None:
    assert set(classes(requests.exceptions, requests.exceptions.RequestException)) == set(REQUESTS)


@pytest.mark.parametrize("name", REQUESTS)
def test_each_class_of_requests_has_its_error(name: str) -> None:
    error = translate(made(getattr(requests.exceptions, name)), DOING)

    assert type(error) is REQUESTS[name]
    assert "secret" not in str(error)


def test_every_class_of_our_own_client_is_in_the_table() -> None:
    assert set(classes(http_errors, http_errors.HttpError)) == set(HTTP)


@pytest.mark.parametrize("name", HTTP)
def test_each_class_of_our_own_client_has_its_error(name: str) -> None:
    with pytest.raises(StorageError) as caught, translated(DOING):
        raise getattr(http_errors, name)("certificate has expired")

    assert type(caught.value) is HTTP[name]
    assert caught.value.__suppress_context__


def test_errors_of_urllib3_are_transient() -> None:
    found = classes(urllib3.exceptions, urllib3.exceptions.HTTPError)

    assert {type(translate(made(kind), DOING)) for kind in found.values()} == {TransientStorageError}


def test_a_certificate_that_does_not_verify_needs_a_person() -> None:
    error = translate(made(requests.exceptions.SSLError, "[SSL: CERTIFICATE_VERIFY_FAILED]"), DOING)

    assert type(error) is DestinationRefuses
    assert "its TLS certificate is not accepted: certificate verify failed;" in str(error)


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (401, "authError", AccessDenied),
        (403, "forbidden", AccessDenied),
        (403, "accountDisabled", AccessDenied),
        (403, "rateLimitExceeded", TransientStorageError),
        (403, "userRateLimitExceeded", TransientStorageError),
        (403, "quotaExceeded", TransientStorageError),
        (403, "storageQuotaExceeded", DestinationFull),
        (507, "", DestinationFull),
        (404, "notFound", ObjectMissing),
        (408, "", TransientStorageError),
        (409, "conflict", TransientStorageError),
        (412, "conditionNotMet", ObjectExists),
        (429, "rateLimitExceeded", TransientStorageError),
        (500, "backendError", TransientStorageError),
        (502, "", TransientStorageError),
        (503, "backendError", TransientStorageError),
        (501, "", StorageError),
        (400, "invalid", StorageError),
        (411, "required", StorageError),
        (413, "uploadTooLarge", StorageError),
    ],
)
def test_each_response_has_its_error(status: int, reason: str, expected: type[StorageError]) -> None:
    error = refused(answer(status, reason), DOING)

    assert type(error) is expected
    assert error.status == status
    assert str(error).startswith(f"{DOING}: {status} {reason} as it says")


def test_a_rejected_checksum_differs_from_another_bad_request() -> None:
    text = 'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "mnG7TA==".'

    assert type(refused(answer(400, "invalid", text), DOING)) is ChecksumRejected


def test_a_page_in_place_of_an_answer_is_named_by_its_status() -> None:
    page = Answer(502, lambda _: None, b"<html>")

    assert type(refused(page, DOING)) is TransientStorageError


def test_an_error_that_holds_a_url_is_not_chained() -> None:
    with pytest.raises(TransientStorageError) as caught, translated(DOING):
        raise made(requests.exceptions.ReadTimeout)

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("kind", [api_errors.ServiceUnavailable, requests.exceptions.ReadTimeout])
def test_an_error_names_its_store_key_and_operation(kind: type[Exception]) -> None:
    raised = made(kind)
    if isinstance(raised, api_errors.GoogleAPICallError):
        raised._response = None

    with pytest.raises(TransientStorageError) as caught, translated(DOING):
        raise raised

    assert (caught.value.store, caught.value.key, caught.value.operation) == ("gs://bucket", "k", "put")


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (503, "7", 7),
        (429, "7", 7),
        (429, "Wed, 21 Oct 2026 07:28:30 GMT", 30),
        (503, "99999999", 86_400),
        (503, "soon", None),
        (503, None, None),
        (500, "7", None),
    ],
)
def test_what_a_busy_service_asks_for_is_in_the_error(
    status: int, value: str | None, seconds: int | None
) -> None:
    busy = response(status, "because")
    busy.headers["Date"] = "Wed, 21 Oct 2026 07:28:00 GMT"
    if value is not None:
        busy.headers["Retry-After"] = value

    error = refused(Answer.of(busy), DOING)

    assert error.retry_after == (None if seconds is None else timedelta(seconds=seconds))
