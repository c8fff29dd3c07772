"""Decide which addresses may be read. URLs come from an API and from playlists: they are data, and a hostile one must
not make a worker fetch from inside its own network.

Rules: https and public addresses only. With `allow_private`, the very origins that the API handed out may be
plain http, loopback or private; a redirect or a reference to any other private host or port is refused all the
same. What is checked is the very address that is connected to, whatever a name resolves to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from functools import lru_cache

from archiver.transfer.errors import SourceNotAllowed
from archiver.transfer.urls import Origin

_NUMBER_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)")


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_INSIDE = _networks(  # what `allow_private` opens; never link-local (cloud metadata), multicast or 0.0.0.0/8
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # shared address space: pods and VPNs
    "::1/128",
    "fc00::/7",
)

_NOT_REALLY_GLOBAL = _networks(  # Python 3.11's `is_global` passes most of these (storage.md, "Security")
    "192.0.0.0/24",  # protocol assignments, 192.0.0.8 among them
    "192.88.99.0/24",  # 6to4 relays
    "64:ff9b::/96",  # NAT64: any IPv4 address in disguise, as are the next four
    "64:ff9b:1::/48",
    "2002::/16",  # 6to4
    "2001::/32",  # Teredo
    "::/96",  # IPv4-compatible
    "fec0::/10",  # site-local
)


class AddressPolicy:
    """The rules above. Stateless; safe from several threads."""

    def __init__(self, allow_private: bool = False) -> None:
        self._allow_private = allow_private

    def check(self, origin: Origin, handed_out: Collection[Origin], ip: str) -> None:
        """Whether `origin` may be read from the address `ip`. Raises SourceNotAllowed."""
        self.check_name(origin, handed_out)
        why = _refusal(ip, self._allow_private and origin in handed_out)
        if why:
            raise SourceNotAllowed(f"{origin} is not read: {why}{self._hint(origin, handed_out)}")

    def check_name(self, origin: Origin, handed_out: Collection[Origin]) -> None:
        """Whether the name of `origin` may be looked up. Raises SourceNotAllowed."""
        if origin.scheme != "https" and not (self._allow_private and origin in handed_out):
            raise SourceNotAllowed(f"{origin} is not read: only https is{self._hint(origin, handed_out)}")
        if _is_odd_number(origin.host):
            raise SourceNotAllowed(
                f"{origin} is not read: the host is a number, but not an IPv4 address in its usual form"
            )

    def _hint(self, origin: Origin, handed_out: Collection[Origin]) -> str:
        if self._allow_private:
            return "" if origin in handed_out else ", and the API did not hand out this origin itself"
        return (
            " (if the API's own storage is meant to be there, set ARCHIVER_ALLOW_PRIVATE_SOURCES)"
            if origin in handed_out
            else ""
        )


@lru_cache(maxsize=4096)
def _is_odd_number(host: str) -> bool:
    if not _NUMBER_LABEL.fullmatch(host.rsplit(".", 1)[-1]):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


@lru_cache(maxsize=4096)
def _refusal(text: str, trusted: bool) -> str | None:
    """Return why `text` may not be connected to; None when it may."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text} is no usable address"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if _within(address, _INSIDE):
        return None if trusted else f"{text} is a private or loopback address"
    if (
        not address.is_global
        or address.is_multicast
        or address.is_reserved
        or _within(address, _NOT_REALLY_GLOBAL)
    ):
        return f"{text} is not a public address"
    return None


def _within(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...],
) -> bool:
    return any(address in network for network in networks if network.version == address.version)
