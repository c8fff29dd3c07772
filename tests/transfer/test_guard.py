from __future__ import annotations

import socket

import pytest

from transfer.errors import SourceNotAllowed, SourceUnavailable
from transfer.guard import AddressPolicy, SocketAddress
from transfer.urls import Origin, SecretUrl

PUBLIC = "93.184.216.34"


def resolving_to(*addresses: str, allow_private: bool = False) -> AddressPolicy:
    def resolve(host: str, port: int) -> list[SocketAddress]:
        return [
            SocketAddress(socket.AF_INET6 if ":" in ip else socket.AF_INET, (ip, port)) for ip in addresses
        ]

    return AddressPolicy(allow_private, resolve)


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
    (found,) = resolving_to(ip).addresses(HTTPS, ())

    assert found.sockaddr[0] == ip


@pytest.mark.parametrize("ip", [*NEVER, *PRIVATE])
def test_no_other_address_is_read_by_default_even_where_the_api_handed_it_out(ip: str) -> None:
    with pytest.raises(SourceNotAllowed, match=r"cdn\.example\.com"):
        resolving_to(ip).addresses(HTTPS, {HTTPS})


@pytest.mark.parametrize("ip", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_with_allow_private_the_origin_that_the_api_handed_out_may_be_private(ip: str, scheme: str) -> None:
    origin = Origin(scheme, "storage.internal", 9000)

    assert resolving_to(ip, allow_private=True).addresses(origin, {origin})


@pytest.mark.parametrize("ip", NEVER)
def test_link_local_multicast_and_disguised_addresses_are_never_read(ip: str) -> None:
    with pytest.raises(SourceNotAllowed):
        resolving_to(ip, allow_private=True).addresses(HTTPS, {HTTPS})


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
        resolving_to(ip, allow_private=True).addresses(HTTPS, {handed_out})


@pytest.mark.parametrize("allow_private", [False, True])
def test_plain_http_elsewhere_is_refused(allow_private: bool) -> None:
    with pytest.raises(SourceNotAllowed, match="only https"):
        resolving_to(PUBLIC, allow_private=allow_private).addresses(Origin("http", "cdn.example.com", 80), ())


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(SourceNotAllowed, match=r"10\.0\.0\.1"):
        resolving_to(PUBLIC, "10.0.0.1").addresses(HTTPS, ())


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "1.2.3.0x4", "017700000001"]
)
def test_numbers_that_only_some_read_as_an_address_are_refused_before_they_are_resolved(host: str) -> None:
    def resolve(host: str, port: int) -> list[SocketAddress]:
        raise AssertionError("resolved")

    policy = AddressPolicy(allow_private=True, resolve=resolve)
    origin = Origin("https", host, 443)

    with pytest.raises(SourceNotAllowed, match="number"):
        policy.addresses(origin, {origin})


def test_a_name_that_does_not_resolve_may_do_so_later() -> None:
    def resolve(host: str, port: int) -> list[SocketAddress]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with pytest.raises(SourceUnavailable, match="does not resolve"):
        AddressPolicy(resolve=resolve).addresses(HTTPS, ())


def test_a_name_that_resolves_to_nothing_is_unavailable() -> None:
    with pytest.raises(SourceUnavailable, match="no address"):
        resolving_to().addresses(HTTPS, ())


def test_the_message_tells_how_to_allow_private_storage() -> None:
    origin = Origin("http", "localhost", 9000)

    with pytest.raises(SourceNotAllowed, match="ARCHIVER_ALLOW_PRIVATE_SOURCES"):
        resolving_to("127.0.0.1").addresses(origin, {origin})


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
