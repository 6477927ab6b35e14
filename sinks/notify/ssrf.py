"""Which addresses a notification may be sent to: public ones only, unless a setting allows others.

A subscription decides where alerts are sent. Without this check its author could make the notifier
send requests into its own network (server-side request forgery). The ranges follow the IANA
registries of special-purpose addresses. They are listed here because the tables of the standard
library differ between versions of Python.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

Resolve = Callable[[str, int], Sequence[tuple[Any, ...]]]
"""Resolves a host and a port as ``socket.getaddrinfo`` does."""

_NOT_PUBLIC_V4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carrier-grade NAT
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # virtual address of Azure's platform services
            "169.254.0.0/16",  # link-local, with the metadata service of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments, with the metadata service of Oracle Cloud
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
# Everything outside of global unicast is refused: loopback, unique local, site-local, link-local,
# multicast. Within it only these are.
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
# The interface identifier of an ISATAP address (RFC 5214); an IPv4 address follows.
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


# IPv6 addresses that lead to an IPv4 address. They are public if that address is.
_EMBEDDING: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), _last_32),  # IPv4-mapped
    (ipaddress.IPv6Network("64:ff9b::/96"), _last_32),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), _of_6to4),
    (ipaddress.IPv6Network("2001::/32"), _of_teredo),
)


class ForbiddenAddress(Exception):
    """The address is not public. The message names it and the setting that allows it."""


def resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    """The addresses of a host, from the system's resolver."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def checked_addresses(
    host: str, port: int, *, allow_private: bool, lookup: Resolve = resolve
) -> list[tuple[str, int]]:
    """The addresses and ports that a connection to the host may be made to.

    Connect to these and do not resolve the name again: a second lookup may give another answer
    (DNS rebinding). One forbidden address among several forbids the host.

    Raises:
        ForbiddenAddress: an address is not public and ``allow_private`` is false.
        OSError: the host is unknown.
    """
    found = [(str(one[4][0]), int(one[4][1])) for one in lookup(host, port)]
    for address, _ in found:
        if not allow_private and not is_public(address):
            raise ForbiddenAddress(forbidden(host, address))
    return list(dict.fromkeys(found))


def connect(addresses: Sequence[tuple[str, int]], deadline: float) -> socket.socket:
    """A TCP connection to the first of these addresses that accepts one.

    ``deadline`` is a time of ``time.monotonic``. Raises ``OSError``.
    """
    error = OSError("the host has no address")
    for address in addresses:
        try:
            sock = socket.create_connection(
                address, timeout=max(0.001, deadline - time.monotonic())
            )
        except OSError as problem:
            error = problem
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise error


def forbidden(host: str, address: str) -> str:
    """The error for an address that is not public."""
    named = f"{host} is {address}, " if host and host != address else f"{address} is "
    return (
        f"{named}an address of a private or local network: notifications are sent there only "
        f"with the setting notify_allow_private"
    )


def is_public(address: str) -> bool:
    """Whether an address is on the public internet.

    Loopback, private, link-local, shared, reserved and multicast addresses are not. Raises
    ``ValueError`` if the text is not an IP address.
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
