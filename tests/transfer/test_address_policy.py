from __future__ import annotations

from collections.abc import Collection

import pytest

from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.errors import SourceNotAllowed, SourceUnavailable
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.urls import Origin, SecretUrl
from tests.transfer.builders import Knowing

PUBLIC = "93.184.216.34"


def ask(origin: Origin, ip: str, handed_out: Collection[Origin] = (), *, allow_private: bool = False) -> None:
    """As a request does: the name is checked before it is looked up, the address when it is connected to."""
    policy = AddressPolicy(allow_private)
    policy.check_name(origin, handed_out)
    policy.check(origin, handed_out, ip)


HTTPS = Origin("https", "cdn.example.com", 443)

NEVER = [
    "169.254.169.254",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "fe80::1",
    "ff02::1",
    "::",
    "64:ff9b::a00:1",
    "64:ff9b::5db8:d822",
    "64:ff9b:1::a00:1",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
    "::10.0.0.1",
    "fec0::1",
    "::ffff:169.254.169.254",
    "fe80::1%eth0",
]
PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
]


@pytest.mark.parametrize("ip", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_may_be_read_by_https(ip: str) -> None:
    ask(HTTPS, ip)


@pytest.mark.parametrize("ip", [*NEVER, *PRIVATE])
def test_no_other_address_is_read_by_default_even_where_the_api_handed_it_out(ip: str) -> None:
    with pytest.raises(SourceNotAllowed, match=r"cdn\.example\.com"):
        ask(HTTPS, ip, {HTTPS})


@pytest.mark.parametrize("ip", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_with_allow_private_the_origin_that_the_api_handed_out_may_be_private(ip: str, scheme: str) -> None:
    origin = Origin(scheme, "storage.internal", 9000)

    ask(origin, ip, {origin}, allow_private=True)


@pytest.mark.parametrize("ip", NEVER)
def test_link_local_multicast_and_disguised_addresses_are_never_read(ip: str) -> None:
    with pytest.raises(SourceNotAllowed):
        ask(HTTPS, ip, {HTTPS}, allow_private=True)


@pytest.mark.parametrize("ip", PRIVATE)
@pytest.mark.parametrize(
    "handed_out",
    [
        Origin("https", "cdn.example.com", 8443),
        Origin("http", "cdn.example.com", 443),
        Origin("https", "other.example.com", 443),
    ],
)
def test_with_allow_private_another_private_host_port_or_scheme_is_refused(
    ip: str, handed_out: Origin
) -> None:
    with pytest.raises(SourceNotAllowed, match="did not hand out"):
        ask(HTTPS, ip, {handed_out}, allow_private=True)


@pytest.mark.parametrize("allow_private", [False, True])
def test_plain_http_elsewhere_is_refused(allow_private: bool) -> None:
    with pytest.raises(SourceNotAllowed, match="only https"):
        ask(Origin("http", "cdn.example.com", 80), PUBLIC, allow_private=allow_private)


def test_a_private_address_among_those_of_a_name_is_not_connected_to() -> None:
    """Its turn comes first here; whichever it is, `AddressPolicy.check` is asked for each."""
    http = Knowing(AddressPolicy(), f"cdn.example.com:443:10.0.0.1,{PUBLIC}")

    with pytest.raises(SourceNotAllowed, match=r"10\.0\.0\.1"):
        http.get(Address(SecretUrl("https://cdn.example.com/x")), {})
    http.close()


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "1.2.3.0x4", "017700000001"]
)
def test_numbers_that_only_some_read_as_an_address_are_refused_before_they_are_resolved(host: str) -> None:
    origin = Origin("https", host, 443)

    with pytest.raises(SourceNotAllowed, match="number"):
        AddressPolicy(allow_private=True).check_name(origin, {origin})


def test_a_name_that_does_not_resolve_may_do_so_later() -> None:
    http = HttpClient(AddressPolicy())

    with pytest.raises(SourceUnavailable, match="resolve"):
        http.get(Address(SecretUrl("https://nowhere.invalid/x")), {})
    http.close()


def test_the_message_tells_how_to_allow_private_storage() -> None:
    origin = Origin("http", "localhost", 9000)

    with pytest.raises(SourceNotAllowed, match="ARCHIVER_ALLOW_PRIVATE_SOURCES"):
        ask(origin, "127.0.0.1", {origin})


# -- URLs ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "https://user:pass@host/x",
        "https://host@evil/x",
        "https:///x",
        "https://host:0/x",
        "https://host:99999/x",
        "https://host:x/",
        "https://ho st/x",
        "https://host\\@evil/x",
        "https://host/x\r\nHost: evil",
        "https://host/\tx",
        "https://[fe80::1%25eth0]/x",
        "https://[::1/x",
        "https://-bad-.example/x",
        "https://a..b/x",
        "//host/x",
        "",
        "https://" + "a" * 64 + ".com/",
        "javascript:alert(1)",
    ],
)
def test_a_url_that_parsers_could_read_differently_is_refused(url: str) -> None:
    with pytest.raises(SourceNotAllowed):
        _ = SecretUrl(url).origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Host.Example./x", Origin("https", "host.example", 443)),
        ("http://host:8080", Origin("http", "host", 8080)),
        ("https://[2001:DB8::1]:444/x", Origin("https", "2001:db8::1", 444)),
        ("https://bücher.example/x", Origin("https", "xn--bcher-kva.example", 443)),
        ("https://my_bucket.s3.amazonaws.com/x", Origin("https", "my_bucket.s3.amazonaws.com", 443)),
    ],
)
def test_an_origin_has_one_form(url: str, origin: Origin) -> None:
    assert SecretUrl(url).origin == origin


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://h", "/"),
        ("https://h?a=b", "/?a=b"),
        ("https://h/a%20b?Sig=%2F+=&x=~*|^#frag", "/a%20b?Sig=%2F+=&x=~*|^"),
        ("https://h/ä b?ü=1", "/%C3%A4%20b?%C3%BC=1"),
    ],
)
def test_a_signed_target_goes_out_as_it_came_in(url: str, target: str) -> None:
    assert SecretUrl(url).target == target


@pytest.mark.parametrize(
    "url",
    [
        "https://u:SECRET@h:1/p?SECRET#SECRET",
        "https://[::1",
        "https://h:99999999/p?SECRET",
        "https://[v1.x]/?SECRET",
    ],
)
def test_a_url_shows_no_secret(url: str) -> None:
    shown = SecretUrl(url)

    assert "SECRET" not in f"{shown} {shown!r} {[shown]}"


def test_a_url_is_not_pickled() -> None:
    import pickle

    with pytest.raises(TypeError, match="credential"):
        pickle.dumps(SecretUrl("https://h/p?SECRET"))
