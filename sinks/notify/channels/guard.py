"""Where a webhook may go: not into the notifier's own network, whatever a name resolves to. Checked for every connection."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

Resolve = Callable[[str, int], Sequence[tuple[Any, ...]]]
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Forbidden(Exception):
    """The address is one of our own network; says which and which setting would allow it."""


def resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    """Addresses of a host, as the system resolves it."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def addresses(host: str, port: int, *, allow_private: bool, lookup: Resolve = resolve) -> list[tuple[str, int]]:
    """Addresses that a connection may be made to, and to no other. Raises ``Forbidden``, or ``OSError`` for an unknown host.

    One forbidden address among several forbids the host: a name that points inside and outside is not to be trusted.
    """
    found = [(str(one[4][0]), int(one[4][1])) for one in lookup(host, port)]
    for address, _ in found:
        if not allow_private and not is_public(address):
            raise Forbidden(
                f"{host} is {address}, an address of a private or local network: "
                f"webhooks go there only with the setting notify_allow_private"
            )
    return list(dict.fromkeys(found))


def is_public(address: str) -> bool:
    """Whether an address is on the public internet: not loopback, private, link-local, shared, reserved or multicast."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast
