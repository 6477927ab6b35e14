"""The receiver that other tests rely on: it keeps whole requests only."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from tests.support.receiver import Call, receiver


def test_a_request_that_breaks_off_is_no_call() -> None:
    """A client that is killed behind the headers, or within the body, has sent nothing:
    ``status`` is not asked.
    """
    asked: list[Call] = []

    def status(call: Call) -> int:
        asked.append(call)
        return 200 if call.path == "/x?y=1" else 503

    with receiver(status=status, headers={"X-Kind": "test"}) as there:
        at = urlsplit(there.url)
        for sent in (b"", b'{"half":'):
            with socket.create_connection((at.hostname or "", at.port or 0), 5) as connection:
                connection.sendall(
                    b"POST /cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n" + sent
                )
        client = http.client.HTTPConnection(at.hostname or "", at.port, timeout=5)
        for path, expected in (("/x?y=1", 200), ("/z", 503)):
            client.request("POST", path, b"{}", {"Idempotency-Key": "k"})
            answer = client.getresponse()
            assert (answer.status, answer.headers["X-Kind"], answer.read()) == (
                expected,
                "test",
                b"thanks",
            )
        client.close()
    assert [call.path for call in asked] == ["/x?y=1", "/z"]
    assert [(call.path, call.data, call.headers["idempotency-key"]) for call in there.taken] == [
        ("/x?y=1", {}, "k")
    ]
    assert [call.path for call in there.refused] == ["/z"]
