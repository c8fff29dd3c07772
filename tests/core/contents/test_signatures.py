"""Which parameters of a query name a file, which may, and which only say who may read it."""

from __future__ import annotations

import pytest

from archiver.core.contents.hls.signatures import Query, changing_parameters, part

PARTED = {
    "nothing": ("", "", ""),
    "S3": ("X-Amz-Signature=s&X-Amz-Date=d&versionId=7", "versionId=7", ""),
    "GCS": ("X-Goog-Signature=s&generation=7", "generation=7", ""),
    "S3, version 2": ("AWSAccessKeyId=k&Signature=s&Expires=1&part=2", "part=2", ""),
    "OSS": ("OSSAccessKeyId=k&Signature=s&Expires=1&security-token=t", "", ""),
    "CloudFront": ("Policy=p&Signature=s&Key-Pair-Id=k", "", ""),
    "CloudFront, canned": ("Expires=1&Signature=s&Key-Pair-Id=k&n=1", "n=1", ""),
    "Media CDN": ("URLPrefix=u&Expires=1&KeyName=k&Signature=s", "", ""),
    "Akamai": ("hdnts=exp=1~acl=/*~hmac=h&n=1", "n=1", ""),
    "Azure": ("sv=1&sr=b&sig=s&se=t&part=2", "part=2", ""),
    "Azure's names without its signature": ("se=1&part=2", "se=1&part=2", ""),
    "a signature of no known scheme": ("Signature=s&Expires=1", "", "Signature=s&Expires=1"),
    "md5 alone": ("md5=1", "", "md5=1"),
    "sig alone": ("sig=1&n=2", "n=2", "sig=1"),
    "verify": ("verify=1-x", "", "verify=1-x"),
    "token and expires": ("token=t&expires=1&n=1&n=2", "n=1&n=2", "token=t&expires=1"),
    "unknown": ("nonce=1&n=2", "nonce=1&n=2", ""),
    "no value": ("a&&b=", "a&b=", ""),
}


@pytest.mark.parametrize(("query", "selects", "may_select"), PARTED.values(), ids=PARTED)
def test_a_query_is_parted(query: str, selects: str, may_select: str) -> None:
    assert part(query) == Query(selects, may_select)


def test_what_changes_at_every_request_selects_at_most() -> None:
    assert part("n=2&nonce=1&X-Amz-Date=d", frozenset({"nonce", "X-Amz-Date"})) == Query("n=2", "nonce=1")


U = "https://h/a.ts"
V = "https://h/b.ts"

COMPARED = {
    "nothing to compare": ([], [], set()),
    "the same": ([f"{U}?n=1", f"{V}?n=2"], [f"{U}?n=1", f"{V}?n=2"], set()),
    "a nonce": ([f"{U}?n=1&x=8", f"{V}?n=2&x=9"], [f"{U}?n=1&x=3", f"{V}?n=2&x=4"], {"x"}),
    "one that changes in some alone": ([f"{U}?x=1", f"{V}?x=1"], [f"{U}?x=1", f"{V}?x=2"], {"x"}),
    "several": ([f"{U}?x=1&y=1"], [f"{U}?x=2&y=2"], {"x", "y"}),
    "one that is there now and then": ([f"{U}?x=1"], [U], {"x"}),
    "without a value": ([f"{U}?x"], [f"{U}?y"], {"x", "y"}),
    "another order of parameters": ([f"{U}?a=1&b=2"], [f"{U}?b=2&a=1"], set()),
    "another order of references": ([f"{U}?n=1", f"{U}?n=2"], [f"{U}?n=2", f"{U}?n=1"], set()),
    "another host": (["https://edge1/a.ts?x=1"], ["https://edge2/a.ts?x=2"], {"x"}),
    "another path: not the same reference": ([f"{U}?n=1"], [f"{V}?n=2"], set()),
    "one more at the end": ([f"{U}?n=1"], [f"{U}?n=1", f"{V}?n=2"], set()),
    "a fragment": ([f"{U}?n=1#1"], [f"{U}?n=1#2"], set()),
    "what cannot be parsed": (["https://[h/a?n=1"], ["https://[h/a?n=2"], set()),
}


@pytest.mark.parametrize(("first", "second", "changing"), COMPARED.values(), ids=COMPARED)
def test_two_signings_show_what_changes(first: list[str], second: list[str], changing: set[str]) -> None:
    assert changing_parameters(iter(first), iter(second)) == changing
