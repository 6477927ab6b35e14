"""Ports of worker, sink and notifier: set ones are fixed, chosen ones kept, replaced if taken."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from stepstream.common.listen import AddressTaken, explained
from stepstream.common.observe import Observer, ObserverServer
from stepstream.local.embedded import instance
from stepstream.local.service_ports import ServicePorts
from stepstream.schemas.settings import Settings


def ports(
    folder: Path, *, usual: bool = False, taken: tuple[int, ...] = (), **settings: object
) -> ServicePorts:
    return ServicePorts(
        Settings.model_validate(settings), folder, usual=usual, free=lambda port: port not in taken
    )


def all_of(found: ServicePorts) -> dict[str, int]:
    of = {part: found.of(part) for part in ("worker", "sink", "notify")}
    return {
        "notify": of["notify"]["notify_port"],
        **{part: addresses["metrics_port"] for part, addresses in of.items()},
    } | {
        "notify metrics": of["notify"]["metrics_port"],
        "notify": of["notify"]["notify_port"],
    }


def test_the_usual_ports_are_taken_where_they_are_free(tmp_path: Path) -> None:
    found = ports(tmp_path, usual=True)
    assert all_of(found) == {"notify": 8124, "worker": 9464, "sink": 9465, "notify metrics": 9466}
    assert found.urls() == {
        "notify": "http://127.0.0.1:8124",
        "gateway": "http://127.0.0.1:4318",
        "console": "http://127.0.0.1:8125",
        "metrics_worker": "http://127.0.0.1:9464/metrics",
        "metrics_sink": "http://127.0.0.1:9465/metrics",
        "metrics_notify": "http://127.0.0.1:9466/metrics",
    }
    other = all_of(ports(tmp_path, usual=True, taken=(8124, 9465)))
    assert (other["worker"], other["notify metrics"]) == (9464, 9466)
    assert not {8124, 9465} & set(other.values())
    assert len(set(other.values())) == 4


def test_chosen_ports_are_the_same_at_the_next_start(tmp_path: Path) -> None:
    first = ports(tmp_path)
    first.save()
    assert all_of(ports(tmp_path)) == all_of(first)
    assert all_of(ports(tmp_path, usual=True)) == all_of(first)
    lost = all_of(first)["sink"]
    again = all_of(ports(tmp_path, taken=(lost,)))
    assert again["sink"] != lost
    assert {**again, "sink": lost} == all_of(first)
    for text in ("", "[]", '{"notify": "x"}', '{"notify": null}'):
        (tmp_path / "ports.json").write_text(text)
        assert len(set(all_of(ports(tmp_path)).values())) == 4


def test_a_metrics_port_is_the_first_of_three(tmp_path: Path) -> None:
    """Worker, sink and notifier do not meet on one port."""
    fixed: Any = {"notify_port": 39000, "gateway_port": 39318, "console_port": 39125}
    found = ports(tmp_path, metrics_port=39464, **fixed)
    assert all_of(found) == {
        "notify": 39000,
        "worker": 39464,
        "sink": 39465,
        "notify metrics": 39466,
    }
    found.save()
    assert (tmp_path / "ports.json").read_text() == "{}"  # what is set is not remembered
    off = ports(tmp_path, metrics_port=-1, notify_port=-1, gateway_port=-1, console_port=-1)
    assert (off.urls(), set(all_of(off).values())) == ({}, {-1})
    assert (
        ports(tmp_path, metrics_port=39464, metrics_host="0.0.0.0").urls()["metrics_sink"]
        == "http://127.0.0.1:39465/metrics"
    )
    with pytest.raises(ValueError, match="metrics_port"):
        Settings(metrics_port=65534)


def test_a_set_port_that_is_taken_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(
        AddressTaken,
        match=r"port 39465 on 127\.0\.0\.1 is taken .*set metrics_port \(--metrics-port\)",
    ):
        ports(tmp_path, metrics_port=39464, taken=(39465,)).check()
    with pytest.raises(AddressTaken, match=r"set notify_port \(--notify-port\)"):
        ports(tmp_path, notify_port=39000, taken=(39000,)).check()
    ports(tmp_path, usual=True, taken=(8124, 9464)).check()


def test_chosen_ports_are_chosen_again_and_set_ones_are_not(tmp_path: Path) -> None:
    found = ports(tmp_path, notify_port=39000)
    before = all_of(found)
    assert found.choose_again("notify")
    after = all_of(found)
    assert {name for name in before if before[name] != after[name]} == {"notify metrics"}
    assert found.choose_again("worker")
    assert all_of(found)["worker"] != before["worker"]
    assert not ports(tmp_path, metrics_port=39464).choose_again("sink")


def test_the_error_of_a_taken_port_is_one_sentence() -> None:
    """As every server raises it, with the setting's name; other errors keep their reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AddressTaken) as raised:
            ObserverServer(Observer(), host="127.0.0.1", port=port)
    assert str(raised.value).startswith(
        f"port {port} on 127.0.0.1 is taken by another program: stop that program, or set "
    )
    assert "Errno" not in str(raised.value)
    # Explained twice it would be one sentence in another.
    assert explained(raised.value, 1, "x") is raised.value
    denied = explained(PermissionError(13, "Permission denied"), 80, "notify_port")
    assert str(denied).endswith(
        "cannot listen on 127.0.0.1:80 (setting notify_port): Permission denied"
    )


def test_kafka_gets_other_ports_after_one_was_taken(tmp_path: Path) -> None:
    """A port that was free when checked is taken at the start: the second choice is another one."""
    first = instance.plan(
        None,
        count=2,
        port=0,
        folder=tmp_path,
        setting="kafka_port",
        prefer=9092,
        free=lambda _port: True,
    )
    assert [node.broker_port for node in first.nodes] == [9092, 9093]
    second = instance.plan(
        first,
        count=2,
        port=0,
        folder=tmp_path,
        setting="kafka_port",
        prefer=9092,
        again=True,
        free=lambda _port: True,
    )
    # The id is in the data folder: with another one Kafka refuses to start.
    assert second.cluster_id == first.cluster_id
    used = {port for node in first.nodes for port in (node.broker_port, node.controller_port)}
    assert not used & {
        port for node in second.nodes for port in (node.broker_port, node.controller_port)
    }
    given = instance.plan(
        first,
        count=2,
        port=7000,
        folder=tmp_path,
        setting="kafka_port",
        again=True,
        free=lambda _port: True,
    )
    assert [node.broker_port for node in given.nodes] == [7000, 7001]


def test_a_port_is_chosen_for_one_server_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that has not started does not listen yet: its port seems free to the next one."""
    offered = iter(range(40_001, 41_000))
    monkeypatch.setattr(
        "stepstream.local.service_ports.free_ports",
        lambda count: [40_000, *(next(offered) for _ in range(count - 1))],
    )
    found = ports(tmp_path)
    assert len(set(all_of(found).values())) == 4
    found.choose_again("notify")
    assert len(set(all_of(found).values())) == 4


def test_the_gateway_s_port_is_chosen_set_or_turned_off(tmp_path: Path) -> None:
    """4318 is what exporters send to by default."""
    found = ports(tmp_path, usual=True, taken=(4318,))
    assert found.of("gateway")["gateway_port"] not in (0, 4318)
    assert found.choose_again("gateway")
    fixed = ports(tmp_path, gateway_port=39318)
    assert fixed.of("gateway") == {"gateway_port": 39318}
    assert not fixed.choose_again("gateway")
    assert "gateway" not in ports(tmp_path, gateway_port=-1).urls()
    with pytest.raises(AddressTaken, match="gateway_port"):
        ports(tmp_path, gateway_port=39318, taken=(39318,)).check()


def test_the_console_s_port_is_chosen_set_or_turned_off(tmp_path: Path) -> None:
    found = ports(tmp_path, usual=True, taken=(8125,))
    assert found.of("console")["console_port"] not in (0, 8125)
    assert ports(tmp_path, console_port=39125).of("console") == {"console_port": 39125}
    assert "console" not in ports(tmp_path, console_port=-1).urls()
