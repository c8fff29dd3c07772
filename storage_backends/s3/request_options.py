"""Every option of PutObject, UploadPart and GetObject: sent by our own requests, or not.

To send another option, such as CacheControl:

1. move it from NOT_SENT to HEADERS, with its header (in lower case);
2. let `S3Settings` have it, and put it into the request in `of_new_object` (settings.py), which the
   CreateMultipartUpload of an object of several parts uses as well;
3. if UploadPart takes it as well, add it in upload.py.

tests/storage_backends/test_s3_request_options.py reads the options that boto3 knows. One that is not listed here fails
it, and so does one that the backend sets and HEADERS lacks.
"""

from __future__ import annotations

from collections.abc import Mapping

HEADERS: Mapping[str, str] = {
    "ContentType": "content-type",
    "ContentMD5": "content-md5",
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "IfMatch": "if-match",
    "IfNoneMatch": "if-none-match",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "SSEKMSEncryptionContext": "x-amz-server-side-encryption-context",
    "BucketKeyEnabled": "x-amz-server-side-encryption-bucket-key-enabled",
    "StorageClass": "x-amz-storage-class",
    "Tagging": "x-amz-tagging",
    "ACL": "x-amz-acl",
    "RequestPayer": "x-amz-request-payer",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
}
"""Options that become a header: a text as it is, true and false in lower case, a time in UTC by ISO 8601."""

READ_HEADERS: Mapping[str, str] = {
    "Range": "range",
    "IfMatch": "if-match",
    "RequestPayer": "x-amz-request-payer",
}
"""The same for GetObject."""

ELSEWHERE = frozenset({"Bucket", "Key", "UploadId", "PartNumber", "Body", "ContentLength", "Metadata"})
"""Options that stand in the URL, the body, or headers of their own name (`x-amz-meta-...`)."""

READ_ELSEWHERE = frozenset({"Bucket", "Key"})
"""The same for GetObject."""

_OBJECT_LOCK = "a lock is a mode and a date (lock_mode, lock_days); a hold has no end"
_OTHER_CHECKSUM = "CRC32C, else Content-MD5 (data_path.py)"
_ACCESS = "a canned ACL (acl), or the bucket's policy, decides who may read"
_CUSTOMER_KEY = "a key in each request cannot be recovered from the bucket alone"
_DESCRIPTION = "a recording is described by its content type and metadata"

NOT_SENT: Mapping[str, str] = {
    "ObjectLockLegalHoldStatus": _OBJECT_LOCK,
    "ObjectLockEventHold": _OBJECT_LOCK,
    "ObjectLockEventHoldDurationDays": _OBJECT_LOCK,
    "ObjectLockEventHoldDurationYears": _OBJECT_LOCK,
    "ChecksumAlgorithm": "the checksum's own header names it",
    "ChecksumCRC32": _OTHER_CHECKSUM,
    "ChecksumCRC64NVME": _OTHER_CHECKSUM,
    "ChecksumMD5": _OTHER_CHECKSUM,
    "ChecksumSHA1": _OTHER_CHECKSUM,
    "ChecksumSHA256": _OTHER_CHECKSUM,
    "ChecksumSHA512": _OTHER_CHECKSUM,
    "ChecksumXXHASH128": _OTHER_CHECKSUM,
    "ChecksumXXHASH3": _OTHER_CHECKSUM,
    "ChecksumXXHASH64": _OTHER_CHECKSUM,
    "GrantFullControl": _ACCESS,
    "GrantRead": _ACCESS,
    "GrantReadACP": _ACCESS,
    "GrantWriteACP": _ACCESS,
    "SSECustomerAlgorithm": _CUSTOMER_KEY,
    "SSECustomerKey": _CUSTOMER_KEY,
    "SSECustomerKeyMD5": _CUSTOMER_KEY,
    "CacheControl": _DESCRIPTION,
    "ContentDisposition": _DESCRIPTION,
    "ContentEncoding": _DESCRIPTION,
    "ContentLanguage": _DESCRIPTION,
    "Expires": _DESCRIPTION,
    "WebsiteRedirectLocation": _DESCRIPTION,
    "ExpectedBucketOwner": "the marker of the destination is checked instead (archiver/core/destinations)",
    "WriteOffsetBytes": "objects are written whole (S3 Express appends)",
}
"""Every other option, and why it is not sent."""

_CONDITION = "a read is of the object with a given ETag (IfMatch), or of whatever is there"
_RESPONSE = "only signed URLs change the headers of a response"

NOT_READ: Mapping[str, str] = {
    "ChecksumMode": "of a range S3 gives none; bytes are compared with the manifest's checksums",
    "IfModifiedSince": _CONDITION,
    "IfNoneMatch": _CONDITION,
    "IfUnmodifiedSince": _CONDITION,
    "PartNumber": "objects are read by ranges of bytes",
    "VersionId": "the current version is read",
    "ResponseCacheControl": _RESPONSE,
    "ResponseContentDisposition": _RESPONSE,
    "ResponseContentEncoding": _RESPONSE,
    "ResponseContentLanguage": _RESPONSE,
    "ResponseContentType": _RESPONSE,
    "ResponseExpires": _RESPONSE,
    **{
        n: NOT_SENT[n]
        for n in ("ExpectedBucketOwner", "SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5")
    },
}
"""The same for GetObject."""

BOTO3_HEADERS = frozenset(
    {
        "amz-sdk-invocation-id", "amz-sdk-request", "authorization", "content-length", "content-type", "expect",
        "host", "user-agent", "x-amz-checksum-crc32c", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token",
        "x-amz-sdk-checksum-algorithm",
    }
)  # fmt: skip
"""What boto3 itself puts on a plain PutObject: repeated by our requests, or of no use there. Where it adds any other
(by a handler, or for S3 Express), boto3 sends the requests instead, and a warning names the headers."""
