"""Commands by a gateway: what is sent, and the reason of each refusal."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import pytest
from pydantic import SecretStr

import stepstream
from stepstream.admin.gateway_check import send_span
from stepstream.cli.app import run as cli
from stepstream.schemas.settings import Settings
from tests.support.receiver import receiver

RUN = "4bf92f3577b34da6a3ce929d0e0e4736"
ANSWER = json.dumps(
    {"command_id": "1", "action": "stop", "time": 1, "project": "shop", "trace_id": RUN, "by": "me"}
).encode()


def test_what_is_sent() -> None:
    with receiver(answer=ANSWER) as gateway:
        settings = Settings(endpoint=f"{gateway.url}/base", endpoint_key=SecretStr("k"))
        sent = stepstream.send_command(RUN, "stop", reason="enough", by="me", settings=settings)
    (call,) = gateway.taken
    assert call.path == f"/base/v1/runs/{RUN}/control"
    assert call.headers["x-api-key"] == "k"
    assert call.data == {"action": "stop", "reason": "enough", "by": "me"}
    assert (sent.action, sent.project) == ("stop", "shop")


def test_a_command_to_all_runs_of_an_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver(answer=ANSWER) as gateway:
        monkeypatch.setenv("STEPSTREAM_ENDPOINT", gateway.url)
        words = ["stop", "--agent", "support", "--project", "shop", "--by", "me", "--yes"]
        assert cli([*words, "--for", "2m"]) == 0
        assert cli([*words, "--for", "2h"]) == 2
    (call,) = gateway.taken
    assert call.path == "/v1/control"
    assert call.data == {
        "action": "stop", "project": "shop", "agent": "support", "by": "me", "for": "2m",
    }  # fmt: skip
    got = capsys.readouterr()
    assert "sent stop to all runs of agent support in project shop" in got.out
    assert "10 m" in got.err


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (404, b'{"message": "no run"}', r"no run \(HTTP 404\)"),
        (403, b'{"message": "lacks the scope act"}', "keys create --act"),
        (502, b"<html>", "HTTP 502"),
        (200, b"<html>", "does not answer as a gateway"),
    ],
)
def test_refusals(status: int, answer: bytes, why: str) -> None:
    with receiver(answer=answer, status=lambda _call: status) as gateway:
        settings = Settings(endpoint=gateway.url)
        with pytest.raises(stepstream.CommandNotSent, match=why):
            stepstream.send_command(RUN, "pause", settings=settings)


def test_a_gateway_that_is_away() -> None:
    with pytest.raises(stepstream.CommandNotSent, match="cannot be reached"):
        stepstream.send_command(RUN, "stop", settings=Settings(endpoint="http://127.0.0.1:9"))


def test_a_key_is_not_sent_to_where_a_redirect_leads() -> None:
    with (
        receiver(answer=ANSWER) as other,
        receiver(status=lambda _call: 302, headers={"Location": other.url}) as gateway,
    ):
        settings = Settings(endpoint=gateway.url, endpoint_key=SecretStr("k"))
        with pytest.raises(stepstream.CommandNotSent, match="HTTP 302"):
            stepstream.send_command(RUN, "stop", settings=settings)
        assert not send_span(gateway.url, "k").taken
    assert len(gateway.refused) == 2
    assert other.taken == other.refused == []


def test_a_server_of_another_protocol_is_no_gateway() -> None:
    """Such as the port of a broker."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"220 smtp.example.com\r\n")
                    connection.shutdown(socket.SHUT_WR)
                    # To the end: a close with unread bytes would reset the connection.
                    while connection.recv(65_536):
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(stepstream.CommandNotSent, match="does not answer by HTTP"):
            stepstream.send_command(RUN, "stop", settings=Settings(endpoint=url))
        assert "does not answer by HTTP" in send_span(url, "").sentence
        thread.join()


@pytest.mark.parametrize(
    ("run", "action", "budget", "why"),
    [
        (RUN, "end", "", "action is one of"),
        (RUN[:8], "stop", "", "32 hex digits"),
        (RUN, "stop", "5", "goes with resume"),
        (RUN, "resume", "0", "dollars to add"),
    ],
)
def test_wrong_arguments(run: str, action: str, budget: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        stepstream.send_command(run, action, budget_usd=budget, settings=Settings())


def test_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver(answer=ANSWER) as gateway:
        monkeypatch.setenv("STEPSTREAM_ENDPOINT", gateway.url)
        assert cli(["approve", RUN, "--budget", "5"]) == 0
        assert f"sent resume to run {RUN[:8]} by {gateway.url}" in capsys.readouterr().out
    assert gateway.taken[0].data["budget_usd"] == "5"
