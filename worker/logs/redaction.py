"""Redact secrets in text: known ones by value, others by pattern.

Redacts too much rather than too little: a query is cut up to the next space. Linear in the length of the text.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

from worker.settings import Settings

REDACTED = "[redacted]"
LEAST_LENGTH = 6
"""Shorter known values are not searched for: a password `a` would redact every line. URLs are redacted anyway."""

_SDK_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET")
_STORAGE_SECRET = re.compile(r"AZURE_STORAGE_(?:KEY|SAS_TOKEN|CONNECTION_STRING)(?:_[A-Z0-9]+)?")
_IN_CONNECTION_STRING = re.compile(r"(?:AccountKey|SharedAccessSignature)=([^;]+)", re.IGNORECASE)
_IN_SAS_TOKEN = re.compile(r"\bsig=([^&;\s]+)")
_PARAMETERS = (
    "signature|sig|hmac|policy|key-pair-id|credential|googleaccessid|awsaccesskeyid|aws_?secret_?access_?key|"
    "token|access_?token|session_?token|secret|password|passwd|pwd|api_?key|upload_?id|hdnt[ls]|hdnea"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # redis://:password@host, https://user:password@host
    (re.compile(r'://[^\s/?#"<>]*@'), f"://{REDACTED}@"),
    # ?X-Amz-Signature=... of whole URLs and of bare paths (urllib3 logs those); a mere question mark is left alone
    (re.compile(r"\?[^\sA-Za-z0-9?]*[A-Za-z0-9]\S*"), f"?{REDACTED}"),
    (re.compile(r"%3f\S+", re.IGNORECASE), f"%3F{REDACTED}"),  # a URL inside another one
    # whole headers, as text, in a dict, in a list of pairs
    (
        re.compile(
            r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)(['\"]\s*,\s*b?['\"]|['\"]?\s*[:=]\s*)[^\r\n]+",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
    (re.compile(r"\b(bearer\s+)\S+", re.IGNORECASE), rf"\1{REDACTED}"),
    # X-Amz-Security-Token: ..., but not the request ids that support asks for
    (
        re.compile(
            r"\b(x-(?:amz|goog)-(?!request-id|id-2)[a-z0-9-]{1,60}(?:['\"]\s*,\s*b?['\"]|['\"]?\s*[:=]\s*b?['\"]?))"
            r"[^\s'\"&,;]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(rf"\b({_PARAMETERS})=[^\s&,;'\")]+", re.IGNORECASE), rf"\1={REDACTED}"),
)

_NEEDED = re.compile(r"[:=?%'\"\s]")
"""Each of _PATTERNS matches one of these. Most of what is logged is names, ids and numbers, which have none: a search
for it takes a tenth of the time."""

_DOTTED = re.compile(
    r"(?<![\w-])[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"
)  # what may hold a JWT; each begins once: linear

_known: frozenset[str] = frozenset()
_known_pattern: re.Pattern[str] | None = None
_lock = threading.Lock()


def redact(text: str) -> str:
    """Redact `text`. For every text that leaves the process: logs, task results, the ledger, a terminal. Idempotent."""
    known = _known_pattern
    if known is not None:
        text = known.sub(REDACTED, text)
    if _NEEDED.search(text):
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
    return _DOTTED.sub(_without_jwt, text) if "eyJ" in text else text


def _without_jwt(dotted: re.Match[str]) -> str:
    before, begin, _ = dotted[0].partition("eyJ")  # {" in base64; an escape such as \\n may stand before it
    return before + REDACTED if begin else dotted[0]


def remember_secrets(values: Iterable[str]) -> None:
    """Make `redact` redact these values too, also as spelled in JSON, Python and URLs. Idempotent."""
    global _known, _known_pattern  # noqa: PLW0603  (one process has one set of secrets)
    with _lock:
        spellings = {
            spelling for value in values if len(value) >= LEAST_LENGTH for spelling in _spellings(value)
        }
        _known |= spellings
        if _known:
            longest_first = sorted(_known, key=lambda spelling: (-len(spelling), spelling))
            _known_pattern = re.compile("|".join(map(re.escape, longest_first)))


def secrets_of(settings: Settings) -> Iterator[str]:
    """Every secret value that this process knows: from the settings, and from the environment of the cloud SDKs."""
    if settings.hms_access_key:
        yield settings.hms_access_key
    one_each = (settings.hms_secret, settings.hms_management_token, settings.flower_basic_auth)
    for secret in (
        *one_each,
        settings.heartbeat_url,
        settings.event_url,
        settings.event_secret,
        settings.webhook_secret,
        settings.statement_key,
        settings.statement_tsa_url,
        *(url for _, url in settings.channels),
    ):
        if secret is not None:
            yield secret.get_secret_value()
    if settings.flower_basic_auth is not None:
        yield settings.flower_basic_auth.get_secret_value().partition(":")[2]
    yield from _of_redis(settings.redis_url)
    for name in _SDK_SECRETS:
        yield os.environ.get(name, "")
    for name, value in os.environ.items():
        if _STORAGE_SECRET.fullmatch(name):
            yield from _of_azure(value)


def _of_azure(value: str) -> Iterator[str]:
    """A key, a shared access signature, or a connection string with either."""
    parts = _IN_CONNECTION_STRING.findall(value)
    yield from (value, *parts)
    for signature in _IN_SAS_TOKEN.findall(value):
        yield signature
        yield unquote(signature)


def _of_redis(url: SecretStr | None) -> Iterator[str]:
    password = urlsplit(url.get_secret_value()).password if url is not None else None
    if password:
        yield password
        yield unquote(password)


def _spellings(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield quote(value, safe="")
    yield quote_plus(value)
