"""Translate boto3's errors to ours. They have no common base: `ClientError` is no `BotoCoreError`, a response that
cannot be parsed is neither, and s3transfer has a third kind. tests/storage_backends/test_s3_errors.py enumerates them
all.

The text of a BotoCoreError holds the whole URL, with the upload id in its query; it is neither repeated nor chained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NoReturn

from boto3.exceptions import Boto3Error
from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

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

_CODES: dict[type[StorageError], tuple[str, ...]] = {
    AccessDenied: (
        "AccessDenied", "AccessDeniedException", "AccountProblem", "AllAccessDisabled", "AuthFailure",
        "AuthorizationHeaderMalformed", "ExpiredToken", "ExpiredTokenException", "Forbidden",
        "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidPayer", "InvalidSecurity", "InvalidToken",
        "KMS.AccessDeniedException", "KMS.DisabledException", "KMS.InvalidStateException",
        "KMS.NotFoundException", "MissingAuthenticationToken", "NotSignedUp", "SignatureDoesNotMatch",
        "TokenRefreshRequired", "Unauthorized", "UnauthorizedAccess", "UnrecognizedClientException",
    ),
    BucketMissing: (
        "IllegalLocationConstraintException", "InvalidBucketName", "NoSuchAccessPoint", "NoSuchBucket",
        "PermanentRedirect",
    ),
    DestinationFull: (
        "BucketQuotaExceeded", "NotEnoughSpace", "QuotaExceeded", "StorageFull",
        "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull",
    ),
    TransientStorageError: (
        "BandwidthLimitExceeded", "ConditionalRequestConflict", "IncompleteBody", "InternalError",
        "InternalFailure", "OperationAborted", "PriorRequestNotComplete", "ProvisionedThroughputExceededException",
        "RequestLimitExceeded", "RequestThrottled", "RequestTimeTooSkewed", "RequestTimeout",
        "RequestTimeoutException", "ServiceUnavailable", "SlowDown", "TemporaryRedirect", "Throttling",
        "ThrottlingException", "TooManyRequestsException",
    ),
    ObjectExists: ("PreconditionFailed",),
    ObjectMissing: ("NoSuchKey",),
    ObjectCold: ("InvalidObjectState",),
    UploadGone: ("InvalidPart", "NoSuchUpload"),
    ChecksumRejected: ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"),
    InvalidKey: ("InvalidURI", "KeyTooLongError", "XMinioInvalidObjectName"),
    # a defect of ours, or unsupported by the server: do not retry
    StorageError: (
        "EntityTooLarge", "EntityTooSmall", "InvalidArgument", "InvalidPartOrder", "InvalidRequest",
        "MalformedXML", "MethodNotAllowed", "MissingContentLength", "NotImplemented",
    ),
}  # fmt: skip
_BY_CODE = {code: kind for kind, codes in _CODES.items() for code in codes}

_ADVICE: dict[type[StorageError], str] = {
    ObjectCold: "it is in a cold storage class: restore it first (archiver restore --thaw)",
    AccessDenied: "check the credentials, the bucket policy (if it demands encryption headers: encryption=aws:kms or "
    "encryption=AES256 as an option of the destination), and that s3:ListBucket is allowed (without it a missing key "
    "answers 403 too)",
    BucketMissing: "create the bucket, or correct its name, region or endpoint in the destination",
    DestinationFull: "free space or raise the quota",
}

_CREDENTIALS = (
    botocore_errors.ConfigNotFound,
    botocore_errors.ConfigParseError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.InfiniteLoopConfigError,
    botocore_errors.InvalidConfigError,
    botocore_errors.LoginError,
    botocore_errors.LoginRefreshRequired,
    botocore_errors.MetadataRetrievalError,
    botocore_errors.NoAuthTokenError,
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.ProfileNotFound,
    botocore_errors.RefreshWithMFAUnsupportedError,
    botocore_errors.SSOError,
    botocore_errors.TokenRetrievalError,
    botocore_errors.UnauthorizedSSOTokenError,
    botocore_errors.UnknownCredentialError,
    botocore_errors.UnknownSignatureVersionError,
    botocore_errors.UnsupportedSignatureVersionError,
)
_SETTINGS = (
    botocore_errors.BaseEndpointResolverError,
    botocore_errors.EndpointProviderError,
    botocore_errors.InvalidChecksumConfigError,
    botocore_errors.InvalidDefaultsMode,
    botocore_errors.InvalidEndpointConfigurationError,
    botocore_errors.InvalidIMDSEndpointError,
    botocore_errors.InvalidIMDSEndpointModeError,
    botocore_errors.InvalidMaxRetryAttemptsError,
    botocore_errors.InvalidProxiesConfigError,
    botocore_errors.InvalidRegionError,
    botocore_errors.InvalidRetryConfigurationError,
    botocore_errors.InvalidRetryModeError,
    botocore_errors.InvalidS3AddressingStyleError,
    botocore_errors.InvalidS3UsEast1RegionalEndpointConfigError,
    botocore_errors.InvalidSTSRegionalEndpointsConfigError,
    botocore_errors.MissingDependencyException,
    botocore_errors.NoRegionError,
    botocore_errors.ServiceNotInRegionError,
    botocore_errors.UnknownEndpointError,
    botocore_errors.UnknownRegionError,
    botocore_errors.UnsupportedOutpostResourceError,
    botocore_errors.UnsupportedS3AccesspointConfigurationError,
    botocore_errors.UnsupportedS3ArnError,
    botocore_errors.UnsupportedS3ConfigurationError,
)
_CONNECTION = (
    botocore_errors.ChecksumError,
    botocore_errors.ConnectionError,
    botocore_errors.FlexibleChecksumError,
    botocore_errors.HTTPClientError,
    botocore_errors.IncompleteReadError,
)


_PACKAGES = frozenset({"boto3", "botocore", "urllib3"})


class UnlikeS3(Exception):
    """A success without what every S3 server returns: a portal or a proxy answered instead."""


VENDOR_ERRORS = (
    ClientError,
    BotoCoreError,
    Boto3Error,
    ResponseParserError,
    UnlikeS3,
    HttpError,  # of our own requests
    trust.UnusableCaFile,  # AWS_CA_BUNDLE, read when the client is made
)


def give_up_on_certificates(caught_exception: Exception | None = None, **_of_the_event: object) -> None:
    """Handle botocore's `needs-retry`: do not retry a certificate that does not verify, which would take ten seconds.
    Raises what botocore caught."""
    if caught_exception is not None and trust.rejection(caught_exception) is not None:
        raise caught_exception


def needed(answer: Mapping[str, Any], name: str) -> Any:
    if name not in answer:
        raise UnlikeS3(name)
    return answer[name]


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def retry_after_of(error: Exception) -> timedelta | None:
    """Return the Retry-After of a 429 or 503 (RFC 9110, section 10.2.3; RFC 6585, section 4)."""
    if not isinstance(error, ClientError) or status_of(error) not in (429, 503):
        return None
    return retry_after(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get)


def kind_of(error: ClientError) -> type[StorageError]:
    """Classify by the error code if it is known; else, and for a HEAD, which has no body, by status."""
    code, status = code_of(error), status_of(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in (401, 403):
        return AccessDenied
    if status == 301:
        return BucketMissing
    if status == 404:
        return ObjectMissing
    if status == 412:
        return ObjectExists
    if status == 507:
        return DestinationFull
    if status in (408, 409, 425, 429) or (status >= 500 and status not in (501, 505)):
        return TransientStorageError
    return StorageError


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed if retried."""
    if isinstance(error, ClientError):
        return kind_of(error) is TransientStorageError
    return isinstance(error, HttpError) and trust.rejection(error) is None


def translate(error: Exception, doing: Operation) -> StorageError:
    """Return `error` as one of ours; anything unknown counts as a defect of ours (a plain StorageError)."""
    if isinstance(error, ClientError):
        return _answered(error, doing)
    name = type(error).__name__
    if (reason := trust.rejection(error)) is not None:
        return DestinationRefuses(f"{doing}: {trust.rejected(reason)}")
    if isinstance(error, InvalidRequest):
        return StorageError(f"{doing}: {error}")
    if isinstance(error, HttpError):
        return TransientStorageError(f"{doing}: {error}")
    if isinstance(error, trust.UnusableCaFile):
        return DestinationRefuses(f"{doing}: {error}")
    if isinstance(error, _CREDENTIALS):
        return CredentialsMissing(
            f"{doing}: {name}: no usable AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or give the machine a role"
        )
    if isinstance(error, _SETTINGS):
        return DestinationRefuses(
            f"{doing}: {name}: correct the region or endpoint_url of the destination, or the SDK's settings in AWS_* "
            "variables and ~/.aws"
        )
    if isinstance(error, UnlikeS3):
        return TransientStorageError(
            f"{doing}: a success without {error}: something other than an S3 server answered"
        )
    if isinstance(error, (*_CONNECTION, ResponseParserError)):
        return TransientStorageError(f"{doing}: {name}: the server could not be reached, or cut its response")
    return StorageError(f"{doing}: {name}: the S3 client cannot make this request")


def _answered(error: ClientError, doing: Operation) -> StorageError:
    kind = kind_of(error)
    request_id = error.response.get("ResponseMetadata", {}).get("RequestId") or "-"
    message = str(error.response.get("Error", {}).get("Message", ""))[:200].partition("?")[0]
    text = f"{doing}: {status_of(error)} {code_of(error)} {message}, request {request_id}"
    return kind(
        f"{text}; {_ADVICE[kind]}" if kind in _ADVICE else text,
        status=status_of(error) or None,
        retry_after=retry_after_of(error),
    )


def raise_translated(error: Exception, doing: Operation) -> NoReturn:
    cause = error if isinstance(error, ClientError) else None  # the text of the others holds the URL
    raise translate(error, doing) from cause


@contextlib.contextmanager
def translated(doing: Operation) -> Iterator[None]:
    """Raise boto3's errors as ours, with the fields of `doing`."""
    with doing:
        try:
            yield
        except VENDOR_ERRORS as error:
            raise_translated(error, doing)
        except (StorageError, MemoryError):
            raise
        except Exception as error:
            if not came_through(error, _PACKAGES):
                raise
            raise TransientStorageError(unreadable(error, doing)) from None
