"""URLs made of others without being parsed say what parsing them would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transfer.urls import SecretUrl

BASES = st.sampled_from(
    [
        "https://cdn.example.com/a/b/index.m3u8",
        "https://cdn.example.com/a/b/index.m3u8?token=x/y#part",
        "https://CDN.example.com:8443/ä b/index.m3u8?e=1&s=ü",
        "http://127.0.0.1:9000/index.m3u8",
        "https://[2001:db8::1]/x/",
    ]
)
PLAIN_NAMES = st.from_regex(r"[A-Za-z0-9_=-]{1,20}\.[a-z][a-z0-9]{1,3}", fullmatch=True)
QUERIES = st.from_regex(r"[a-zA-Z0-9_~.%-]{1,9}=[a-zA-Z0-9_~/ü-]{0,9}(&k=v)?", fullmatch=True)


@given(BASES, PLAIN_NAMES)
def test_a_plain_file_beside_it_is_what_joining_its_name_gives(base: str, name: str) -> None:
    beside, joined = SecretUrl(base).beside(name), SecretUrl(base).join(name)

    assert (beside.reveal(), beside.origin, beside.target) == (joined.reveal(), joined.origin, joined.target)


@given(BASES, QUERIES)
def test_with_more_parameters_it_is_what_parsing_the_longer_text_gives(base: str, more: str) -> None:
    longer = SecretUrl(base).with_query(more)

    parsed = SecretUrl(longer.reveal())
    assert longer.reveal().endswith(more)
    assert (longer.origin, longer.target) == (parsed.origin, parsed.target)


def test_an_empty_query_stays_harmless() -> None:
    assert SecretUrl("https://example.com/a?").with_query("k=v").target == "/a?k=v"
