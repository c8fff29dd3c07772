"""Every error that boto3 can raise becomes a chosen one of ours: a release with a new class fails here."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any

import boto3.exceptions
import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

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
from storage_backends.s3.errors import UnlikeS3, translate, translated

DOING = Operation("put", "s3://bucket", "k", "storing")


def words(text: str) -> list[str]:
    return text.split()


CREDENTIALS = words("""
    ConfigNotFound ConfigParseError CredentialRetrievalError InfiniteLoopConfigError InvalidConfigError
    LoginAuthorizationCodeError LoginError LoginInsufficientPermissions LoginRefreshRequired
    LoginTokenLoadError MetadataRetrievalError NoAuthTokenError NoCredentialsError PartialCredentialsError
    ProfileNotFound RefreshWithMFAUnsupportedError SSOError SSOTokenLoadError TokenRetrievalError
    UnauthorizedSSOTokenError UnknownCredentialError UnknownSignatureVersionError
    UnsupportedSignatureVersionError
""")

SETTINGS = words("""
    BaseEndpointResolverError EndpointProviderError EndpointResolutionError EndpointVariantError
    InvalidChecksumConfigError InvalidDefaultsMode InvalidEndpointConfigurationError InvalidIMDSEndpointError
    InvalidIMDSEndpointModeError InvalidMaxRetryAttemptsError InvalidProxiesConfigError InvalidRegionError
    InvalidRetryConfigurationError InvalidRetryModeError InvalidS3AddressingStyleError
    InvalidS3UsEast1RegionalEndpointConfigError InvalidSTSRegionalEndpointsConfigError
    MissingDependencyException NoRegionError ServiceNotInRegionError UnknownEndpointError
    UnknownEndpointResolutionBuiltInName UnknownFIPSEndpointError UnknownRegionError
    UnsupportedOutpostResourceError UnsupportedS3AccesspointConfigurationError UnsupportedS3ArnError
    UnsupportedS3ConfigurationError
""")

CONNECTION = words("""
    ChecksumError ConnectTimeoutError ConnectionClosedError ConnectionError EndpointConnectionError
    FlexibleChecksumError HTTPClientError IncompleteReadError ProxyConnectionError ReadTimeoutError
    ResponseStreamingError SSLError
""")

OUR_DEFECT = words("""
    AliasConflictParameterError ApiVersionNotFoundError AwsChunkedWrapperError BotoCoreError
    CapacityNotAvailableError DataNotFoundError InvalidDNSNameError InvalidEndpointDiscoveryConfigurationError
    InvalidExpressionError InvalidHostLabelError MD5UnavailableError MissingParametersError
    OperationNotPageableError PaginationError ParamValidationError RangeError StubAssertionError
    StubResponseError UnStubbedResponseError UnknownClientMethodError UnknownKeyError UnknownParameterError
    UnknownServiceError UnknownServiceStyle UnknownTokenProviderError UnseekableStreamError
    UnsupportedS3ControlArnError UnsupportedS3ControlConfigurationError UnsupportedServiceProtocolsError
    ValidationError WaiterConfigError WaiterError
""")

EXPECTED: dict[str, type[StorageError]] = {
    **dict.fromkeys(CREDENTIALS, CredentialsMissing),
    **dict.fromkeys(SETTINGS, DestinationRefuses),
    **dict.fromkeys(CONNECTION, TransientStorageError),
    **dict.fromkeys(OUR_DEFECT, StorageError),
}


def botocore_classes() -> dict[str, type[BotoCoreError]]:
    members = inspect.getmembers(botocore.exceptions, inspect.isclass)
    return {name: found for name, found in members if issubclass(found, BotoCoreError)}


def made(kind: type[Exception], text: str = "https://host/bucket?uploadId=secret") -> Exception:
    """An instance whose text holds a URL, whatever its constructor wants."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


def client_error(status: int, code: str, message: str = "as it says") -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "REQUEST1"},
    }
    return ClientError(answer, "PutObject")


def test_every_class_of_botocore_is_in_the_table() -> None:
    assert set(botocore_classes()) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_class_of_botocore_has_its_error(name: str) -> None:
    error = translate(made(botocore_classes()[name]), DOING)

    assert type(error) is EXPECTED[name]
    assert name in str(error)
    assert "secret" not in str(error)


def test_every_class_of_boto3_is_our_own_defect() -> None:
    """We use nothing that raises them (transfers, resources), so none may count as transient."""
    classes = [
        found
        for _, found in inspect.getmembers(boto3.exceptions, inspect.isclass)
        if issubclass(found, boto3.exceptions.Boto3Error)
    ]

    assert boto3.exceptions.S3UploadFailedError in classes
    assert {type(translate(made(found), DOING)) for found in classes} == {StorageError}


@pytest.mark.parametrize(
    ("reported", "reason"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "certificate verify failed"),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)",
            "certificate has expired",
        ),
    ],
)
def test_a_certificate_that_does_not_verify_needs_a_person(reported: str, reason: str) -> None:
    error = translate(made(botocore.exceptions.SSLError, reported), DOING)

    assert type(error) is DestinationRefuses
    assert f"its TLS certificate is not accepted: {reason};" in str(error)


@pytest.mark.parametrize("kind", [ResponseParserError, UnlikeS3])
def test_a_response_that_cannot_be_parsed_is_transient(kind: type[Exception]) -> None:
    assert type(translate(made(kind), DOING)) is TransientStorageError


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidAccessKeyId", AccessDenied),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (400, "ExpiredToken", AccessDenied),
        (400, "AuthorizationHeaderMalformed", AccessDenied),
        (400, "KMS.DisabledException", AccessDenied),
        (401, "Whatever", AccessDenied),
        (403, "403", AccessDenied),
        (404, "NoSuchBucket", BucketMissing),
        (301, "PermanentRedirect", BucketMissing),
        (301, "301", BucketMissing),
        (400, "InvalidBucketName", BucketMissing),
        (403, "QuotaExceeded", DestinationFull),
        (507, "XMinioStorageFull", DestinationFull),
        (507, "", DestinationFull),
        (403, "RequestTimeTooSkewed", TransientStorageError),
        (400, "RequestTimeout", TransientStorageError),
        (400, "IncompleteBody", TransientStorageError),
        (503, "SlowDown", TransientStorageError),
        (200, "InternalError", TransientStorageError),
        (500, "500", TransientStorageError),
        (502, "", TransientStorageError),
        (429, "Anything", TransientStorageError),
        (409, "OperationAborted", TransientStorageError),
        (412, "PreconditionFailed", ObjectExists),
        (412, "412", ObjectExists),
        (404, "NoSuchKey", ObjectMissing),
        (403, "InvalidObjectState", ObjectCold),
        (404, "404", ObjectMissing),
        (404, "NoSuchUpload", UploadGone),
        (400, "InvalidPart", UploadGone),
        (400, "BadDigest", ChecksumRejected),
        (400, "InvalidDigest", ChecksumRejected),
        (400, "XAmzContentChecksumMismatch", ChecksumRejected),
        (400, "KeyTooLongError", InvalidKey),
        (400, "EntityTooSmall", StorageError),
        (400, "InvalidRequest", StorageError),
        (501, "NotImplemented", StorageError),
        (405, "MethodNotAllowed", StorageError),
        (400, "SomethingNew", StorageError),
    ],
)
def test_each_response_has_its_error(status: int, code: str, expected: type[StorageError]) -> None:
    error = translate(client_error(status, code), DOING)

    assert type(error) is expected
    assert error.status == status
    assert str(error).startswith(f"{DOING}: {status} {code} as it says, request REQUEST1")


@pytest.mark.parametrize("raised", [client_error(503, "SlowDown"), made(BotoCoreError), ObjectMissing("no")])
def test_an_error_names_its_store_key_and_operation(raised: Exception) -> None:
    with pytest.raises(StorageError) as caught, translated(DOING):
        raise raised

    assert (caught.value.store, caught.value.key, caught.value.operation) == ("s3://bucket", "k", "put")


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (503, "7", 7),
        (429, "7", 7),
        (503, "Wed, 21 Oct 2026 07:28:30 GMT", 30),
        (503, "99999999", 86_400),
        (503, "soon", None),
        (503, None, None),
        (500, "7", None),
        (403, "7", None),
    ],
)
def test_what_a_busy_server_asks_for_is_in_the_error(
    status: int, value: str | None, seconds: int | None
) -> None:
    answered = client_error(status, "Whatever")
    headers = {"date": "Wed, 21 Oct 2026 07:28:00 GMT"} | ({} if value is None else {"retry-after": value})
    answered.response["ResponseMetadata"]["HTTPHeaders"] = headers

    error = translate(answered, DOING)

    assert error.retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_a_query_in_a_servers_message_is_not_repeated() -> None:
    error = translate(client_error(400, "InvalidRequest", "bad URL /bucket/key?uploadId=secret"), DOING)

    assert "secret" not in str(error)


def test_an_error_that_holds_a_url_is_not_chained() -> None:
    with pytest.raises(TransientStorageError) as caught, translated(DOING):
        raise made(botocore.exceptions.EndpointConnectionError)

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_defect_of_our_own_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), translated(DOING):
        _ = 1 / 0
