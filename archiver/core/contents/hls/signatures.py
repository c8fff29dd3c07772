"""Tell query parameters that authorize a request from those that select a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

_ALWAYS = re.compile(
    r"x-(?:amz|goog|oss)-.*|response-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|hdnts|hdnea|hdntl",
    re.IGNORECASE,
)
"""Parameters that only signing schemes use. They sign the path, so the path alone names the file."""

_OFTEN = re.compile(
    r"security-token|signature|sig|expires?|policy|key-pair-id|keyname|urlprefix|__?token__?|token|auth_key|verify|md5",
    re.IGNORECASE,
)
"""Parameters of signing schemes with common names: some servers select the file by them."""

_SCHEMES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    # required names, and the names that then belong to the signature
    *(
        (frozenset({"signature", key_id}), frozenset({"signature", "expires", "policy", "security-token"}))
        for key_id in ("awsaccesskeyid", "googleaccessid", "ossaccesskeyid")
    ),
    (
        frozenset({"signature", "key-pair-id"}),
        frozenset({"signature", "key-pair-id", "policy", "expires"}),
    ),
    (
        frozenset({"signature", "keyname", "expires"}),
        frozenset({"signature", "keyname", "expires", "urlprefix"}),
    ),
    (
        frozenset({"sig", "sv"}),
        frozenset(
            {"sig", "sv", "ss", "srt", "sp", "se", "st", "spr", "sip", "sr"}
            | {"skoid", "sktid", "skt", "ske", "sks", "skv", "sdd"}
        ),
    ),
)
"""CloudFront, S3, GCS and OSS (version 2), Google Media CDN, Azure SAS."""

_LOOKS_SECRET = re.compile(r"sig|token|auth|hmac|secret|policy|credential|passw|key|hash", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Query:
    """A query, split. `selects` distinguishes files. `may_select` probably signs, or changes with every request: files
    that differ only in it are one file, unless one tree names both."""

    selects: str
    may_select: str


def part(query: str, changing: frozenset[str] | tuple[str, ...] = frozenset()) -> Query:
    """Split `query` into what selects a file and what may; what certainly only signs is left out.

    `changing`: names of parameters known to change with every request."""
    if not query:
        return _NONE
    parts = [each for each in query.split("&") if each]
    names = tuple([each.partition("=")[0] for each in parts])
    selects: list[str] = []
    may_select: list[str] = []
    for each, name, role in zip(parts, names, _roles(names), strict=True):
        if role is None:
            continue
        (may_select if role or name in changing else selects).append(each)
    return Query("&".join(selects), "&".join(may_select))


@lru_cache(maxsize=64)  # all URLs of a tree have the same names
def _roles(names: tuple[str, ...]) -> list[bool | None]:
    """Return for each name: None if it only signs, True if it may also select a file, False if it does."""
    lower = {name.lower() for name in names}
    signing: frozenset[str] = frozenset().union(*(members for needed, members in _SCHEMES if needed <= lower))
    return [
        None if name.lower() in signing or _ALWAYS.fullmatch(name) else _OFTEN.fullmatch(name) is not None
        for name in names
    ]


def looks_secret(query: str) -> bool:
    """Tell whether a parameter of `query` is named like a signature, token or password."""
    names = [each.partition("=")[0] for each in query.split("&")]
    return any(
        _ALWAYS.fullmatch(name) or _OFTEN.fullmatch(name) or _LOOKS_SECRET.search(name) for name in names
    )


def changing_parameters(first: Iterable[str], second: Iterable[str]) -> frozenset[str]:
    """Return the names of query parameters that change with every signature, for `TreeLayout(changing=...)`.

    `first` and `second`: the URLs one playlist names under two signatures, resolved, in order. The n-th URLs are
    compared where they have the same path (the host may differ): a parameter changes if its values differ, or only one
    has it. It does not if both reads have the same values in total: then only the order changed. The longer rest is
    ignored."""
    differing: set[str] = set()
    totals: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for one, other in zip(first, second, strict=False):
        (path_one, query_one), (path_other, query_other) = _path_and_query(one), _path_and_query(other)
        parts = (
            [each for each in query_one.split("&") if each],
            [each for each in query_other.split("&") if each],
        )
        for total, own in zip(totals, parts, strict=True):
            total.update(own)
        if path_one == path_other and parts[0] != parts[1]:
            values = [Counter(own) for own in parts]
            differing |= {
                each.partition("=")[0] for each in (values[0] - values[1]) + (values[1] - values[0])
            }
    unlike = {each.partition("=")[0] for each in (totals[0] - totals[1]) + (totals[1] - totals[0])}
    return frozenset(differing & unlike)


def _path_and_query(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""
    return parts.path, parts.query


_NONE = Query("", "")
