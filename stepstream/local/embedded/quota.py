"""Kafka's default producer quota, over Kafka's own protocol: the Python clients at hand cannot set
it.

AlterClientQuotas version 0, https://kafka.apache.org/protocol#The_Messages_AlterClientQuotas;
before it, where the broker asks for a user, SaslHandshake version 1 and SaslAuthenticate version 0
with the mechanism PLAIN.
"""

from __future__ import annotations

import socket
import struct

from stepstream.common.login import Login

SASL_HANDSHAKE = 17
SASL_AUTHENTICATE = 36
ALTER_CLIENT_QUOTAS = 49
TIMEOUT_SECONDS = 10.0
CLIENT = "stepstream-guard"


class QuotaRefused(Exception):
    """The broker refused the quota; the message has the reason."""


def set_producer_rate(
    server: str, bytes_per_second: float | None, login: Login | None = None
) -> None:
    """Limit every producer of the cluster, or with None lift the limit. ``server`` is one
    ``host:port``.

    Raises OSError when it cannot be reached, QuotaRefused when it refuses.
    """
    host, _, port = server.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection:
        if login is not None:
            _authenticate(connection, login)
        _check(_ask(connection, ALTER_CLIENT_QUOTAS, 0, _alteration(bytes_per_second)))


def _authenticate(connection: socket.socket, login: Login) -> None:
    answer = _ask(connection, SASL_HANDSHAKE, 1, _string("PLAIN"))
    _refuse_error(answer[4:], "the mechanism PLAIN is not taken")
    proof = b"\0" + login.user.encode() + b"\0" + login.password.encode()
    answer = _ask(connection, SASL_AUTHENTICATE, 0, struct.pack(">i", len(proof)) + proof)
    _refuse_error(answer[4:], f"user {login.user} is not taken")


def _refuse_error(answer: bytes, what: str) -> None:
    (code,) = struct.unpack(">h", answer[:2])
    if code:
        raise QuotaRefused(f"error {code}: {what}")


def _ask(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """The answer to a request, from its correlation id on."""
    request = struct.pack(">hhi", api, version, 1) + _string(CLIENT) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (length,) = struct.unpack(">i", _receive(connection, 4))
    return _receive(connection, length)


def _alteration(bytes_per_second: float | None) -> bytes:
    # One entity: the default of all client ids, which is written as a name of null.
    entity = struct.pack(">i", 1) + _string("client-id") + struct.pack(">h", -1)
    value = struct.pack(">d?", bytes_per_second or 0.0, bytes_per_second is None)
    operation = struct.pack(">i", 1) + _string("producer_byte_rate") + value
    return struct.pack(">i", 1) + entity + operation + struct.pack(">?", False)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def _receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            raise ConnectionResetError("the broker closed the connection")
        received += piece
    return received


def _check(answer: bytes) -> None:
    """Correlation id, throttle time, then for each entry its error and message."""
    (_, _, entries) = struct.unpack(">iii", answer[:12])
    code, length = struct.unpack(">hh", answer[12:16]) if entries else (0, -1)
    if code:
        raise QuotaRefused(
            f"error {code}: {answer[16 : 16 + max(length, 0)].decode(errors='replace')}"
        )
