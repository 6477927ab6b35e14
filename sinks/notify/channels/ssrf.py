"""Where a notification may go: not into the notifier's own network, whatever a name resolves to. Checked for every connection.

The ranges are listed here, after the registries of special-purpose addresses that IANA keeps for IPv4 and IPv6: the standard
library's tables differ from one version of Python to the next.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

Resolve = Callable[[str, int], Sequence[tuple[Any, ...]]]

_NOT_PUBLIC_V4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by a provider's customers
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # a cloud's own services
            "169.254.0.0/16",  # link-local, with the metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments, with the metadata of a cloud
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, with the broadcast address
        ),
    )
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
"""Within what is global unicast; everything else (loopback, unique local, site-local, link-local, multicast) is outside it."""
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def _last_32(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    return [ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)]


def _of_6to4(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    return [ipaddress.IPv4Address((int(ip) >> 80) & 0xFFFF_FFFF)]


def _of_teredo(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The server's address and the client's, which is written inverted."""
    return [
        ipaddress.IPv4Address((int(ip) >> 64) & 0xFFFF_FFFF),
        ipaddress.IPv4Address(~int(ip) & 0xFFFF_FFFF),
    ]


_EMBEDDING: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), _last_32),  # IPv4-mapped
    (ipaddress.IPv6Network("64:ff9b::/96"), _last_32),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), _of_6to4),
    (ipaddress.IPv6Network("2001::/32"), _of_teredo),
)
"""Forms of an IPv6 address that lead to an IPv4 address: public where that is."""


class Forbidden(Exception):
    """The address is one of our own network; says which and which setting would allow it."""


def resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    """Addresses of a host, as the system resolves it."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def addresses(
    host: str, port: int, *, allow_private: bool, lookup: Resolve = resolve
) -> list[tuple[str, int]]:
    """Addresses that a connection may be made to, and to no other. Raises ``Forbidden``, or ``OSError`` for an unknown host.

    One forbidden address among several forbids the host: a name that points inside and outside is not to be trusted.
    """
    found = [(str(one[4][0]), int(one[4][1])) for one in lookup(host, port)]
    for address, _ in found:
        if not allow_private and not is_public(address):
            raise Forbidden(forbidden(host, address))
    return list(dict.fromkeys(found))


def forbidden(host: str, address: str) -> str:
    """Why nothing goes to an address, and which setting would allow it."""
    named = f"{host} is {address}, " if host and host != address else f"{address} is "
    return f"{named}an address of a private or local network: notifications go there only with the setting notify_allow_private"


def is_public(address: str) -> bool:
    """Whether an address is on the public internet: not loopback, private, link-local, shared, reserved or multicast.

    Raises ``ValueError`` for what is no address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return not _within(ip, _NOT_PUBLIC_V4)
    for network, inner in _EMBEDDING:
        if ip in network:
            return not any(_within(one, _NOT_PUBLIC_V4) for one in inner(ip))
    if ip not in _GLOBAL_UNICAST or _within(ip, _NOT_PUBLIC_V6):
        return False
    is_isatap = (int(ip) >> 32) & 0xFFFF_FFFF in _ISATAP
    return not (is_isatap and _within(_last_32(ip)[0], _NOT_PUBLIC_V4))


def _within(ip: Any, networks: Iterable[Any]) -> bool:
    return any(ip in network for network in networks)
