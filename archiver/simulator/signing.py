"""Sign URLs: of one path at the storage (as S3 or GCS), of a folder at the CDN (as CloudFront)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode

from archiver.simulator.config import Flavour

_TIME = "%Y%m%dT%H%M%SZ"
_PREFIX = {Flavour.S3: "X-Amz-", Flavour.GCS: "X-Goog-"}
_ALGORITHM = {Flavour.S3: "AWS4-HMAC-SHA256", Flavour.GCS: "GOOG4-RSA-SHA256"}
CDN_NAMES = ("Policy", "Signature", "Key-Pair-Id")
COOKIE_PREFIX = "CloudFront-"


class SignatureVerdict(Enum):
    GOOD = auto()
    MISSING = auto()
    EXPIRED = auto()
    WRONG = auto()


@dataclass(frozen=True)
class Signer:
    key: bytes
    flavour: Flavour = Flavour.S3

    def sign_path(self, method: str, path: str, now_seconds: float, duration_seconds: int) -> str:
        """Return the query that authorizes `method` at `path` (decoded) for `duration_seconds`."""
        prefix = _PREFIX[self.flavour]
        signed_at = datetime.fromtimestamp(now_seconds, UTC).strftime(_TIME)
        query = {
            f"{prefix}Algorithm": _ALGORITHM[self.flavour],
            f"{prefix}Credential": f"SIMULATED/{signed_at[:8]}/us-east-1/s3/aws4_request",
            f"{prefix}Date": signed_at,
            f"{prefix}Expires": str(duration_seconds),
            f"{prefix}SignedHeaders": "host",
            # Two URLs signed in one second differ, so that one can be revoked alone.
            f"{prefix}Security-Token": secrets.token_urlsafe(24),
        }
        query[f"{prefix}Signature"] = self._path_signature(method, path, query)
        return urlencode(query, quote_via=quote)

    def check_path(self, method: str, path: str, raw_query: str, now_seconds: float) -> SignatureVerdict:
        prefix = _PREFIX[self.flavour]
        query = dict(parse_qsl(raw_query, keep_blank_values=True))
        signature = query.pop(f"{prefix}Signature", None)
        if signature is None:
            return SignatureVerdict.MISSING
        if not hmac.compare_digest(signature.encode(), self._path_signature(method, path, query).encode()):
            return SignatureVerdict.WRONG
        signed_at = datetime.strptime(query[f"{prefix}Date"], _TIME).replace(tzinfo=UTC).timestamp()
        ends_at = signed_at + int(query[f"{prefix}Expires"])
        return SignatureVerdict.GOOD if now_seconds < ends_at else SignatureVerdict.EXPIRED

    def sign_folder(self, resource: str, now_seconds: float, duration_seconds: int) -> dict[str, str]:
        """Return CloudFront's three values for `resource`, a URL that may end in `*`."""
        ends_at = int(now_seconds) + duration_seconds
        statement = {
            "Sid": secrets.token_hex(8),  # as above
            "Resource": resource,
            "Condition": {"DateLessThan": {"AWS:EpochTime": ends_at}},
        }
        policy = _to_text(json.dumps({"Statement": [statement]}, separators=(",", ":")).encode())
        return {"Policy": policy, "Signature": self._policy_signature(policy), "Key-Pair-Id": "KSIMULATED"}

    def check_folder(self, url: str, values: Mapping[str, str], now_seconds: float) -> SignatureVerdict:
        """Check whether `values` (of a query or cookies) authorize `url`, without its query."""
        if any(name not in values for name in CDN_NAMES):
            return SignatureVerdict.MISSING
        policy = values["Policy"]
        if not hmac.compare_digest(values["Signature"].encode(), self._policy_signature(policy).encode()):
            return SignatureVerdict.WRONG
        statement = json.loads(_from_text(policy))["Statement"][0]
        resource = str(statement["Resource"])
        covered = url.startswith(resource[:-1]) if resource.endswith("*") else url == resource
        if not covered:
            return SignatureVerdict.WRONG
        ends_at = int(statement["Condition"]["DateLessThan"]["AWS:EpochTime"])
        return SignatureVerdict.GOOD if now_seconds < ends_at else SignatureVerdict.EXPIRED

    def _path_signature(self, method: str, path: str, query: Mapping[str, str]) -> str:
        canonical = "\n".join((method, path, urlencode(sorted(query.items()))))
        return hmac.new(self.key, canonical.encode(), hashlib.sha256).hexdigest()

    def _policy_signature(self, policy: str) -> str:
        return _to_text(hmac.new(self.key, policy.encode(), hashlib.sha256).digest())


def signature_of(raw_query: str, cookies: Mapping[str, str]) -> str | None:
    """Return what identifies a signed URL, or a set of cookies."""
    query = dict(parse_qsl(raw_query, keep_blank_values=True))
    for name in ("X-Amz-Signature", "X-Goog-Signature", "Signature"):
        if name in query:
            return query[name]
    return cookies.get("Signature")


def cookies_of(header: str) -> dict[str, str]:
    """Parse a Cookie header; the CDN's cookies get their names in a query."""
    return {name.removeprefix(COOKIE_PREFIX): morsel.value for name, morsel in SimpleCookie(header).items()}


def _to_text(data: bytes) -> str:
    # CloudFront's own base64 alphabet
    return base64.b64encode(data).decode().translate(str.maketrans("+=/", "-_~"))


def _from_text(text: str) -> bytes:
    return base64.b64decode(text.translate(str.maketrans("-_~", "+=/")))
