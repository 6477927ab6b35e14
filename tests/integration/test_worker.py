"""The worker process over real Kafka: trajectories, alerts and dead letters, through a restart."""

from __future__ import annotations

import itertools
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest

from stepstream.common.kafka import producer
from stepstream.schemas.content_limits import MAX_BYTES, record_bytes
from stepstream.schemas.metrics import METRICS
from stepstream.schemas.times import DAY_US
from stepstream.schemas.topics import topic
from stepstream.stream.shell.loader import has_records
from tests.support.processes import wait_until
from tests.support.worker_world import PARTITIONS, World, now_us, step, trace

CONTENT_LIMITS: Final = {"tool_call": MAX_BYTES}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def world(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("worker")
    limits = ",".join(f"{kind}={size}" for kind, size in CONTENT_LIMITS.items())
    made = World(kafka_bootstrap, folder, content_limits=limits)
    made.start()
    yield made
    made.collected.close()
    made.process.kill()


def test_a_run_is_put_together(world: World) -> None:
    """Steps from all over the tree make one exact trajectory, and its usage has the same total."""
    run = trace()
    tokens = {"input_tokens": 10, "output_tokens": 5}
    world.send(
        step(run, 1, "start"),
        step(run, 2, "start"),
        step(run, 3, parent=2, cost_usd="0.000000007", usage=tokens),
        step(run, 2, cost_usd="0.25", usage=tokens, status="error", error_type="Timeout"),
        step(run, 2, cost_usd="0.25", usage=tokens, status="error", error_type="Timeout"),
        step(run, 1),
    )
    got = world.final(run)
    assert {
        name: got[name]
        for name in ("steps", "error_steps", "cost_usd", "input_tokens", "status", "duplicates")
    } == {
        "steps": 3,
        "error_steps": 1,
        "cost_usd": "0.250000007",
        "input_tokens": 20,
        "status": "ok",
        "duplicates": 1,
    }
    assert got["revision"] == 2 * 5 + 1
    tree = {item["step_id"][-1]: item.get("parent_step_id", "")[-1:] for item in got["path"]}
    assert tree == {"1": "", "2": "1", "3": "2"}
    usage = world.wait_for(
        "usage", lambda value: value.get("trace_id") == run and value["revision"] == 11
    )
    assert (usage["steps"], usage["cost_usd"], usage["agent"]) == (3, "0.250000007", "tester")


def test_contents_of_a_megabyte_are_evaluated(world: World) -> None:
    """A failure at the end of an output that is kept whole is found."""
    run, text = trace(), '"\n' * (MAX_BYTES // 2 - 50)
    failed: dict[str, Any] = {
        "kind": "tool_call",
        "tool": "search",
        "input": text,
        "agent": "whole",
    }
    world.send(
        step(run, 1, "start"),
        step(run, 2, **failed, output=text + "\nError: connection refused"),
        step(run, 1),
    )
    got = world.final(run)
    assert (got["steps"], got["status"]) == (2, "ok")
    found = world.wait_for(
        "findings",
        lambda value: value.get("trace_id") == run and value["rule"] == "hidden_tool_error",
    )
    assert found["step_ids"] == [f"{2:016x}"], found


def test_a_policy_is_taken_over_and_alerts_while_the_run_is_going(world: World) -> None:
    """Without a restart: the next run that breaks it is reported and stopped while it runs."""
    world.apply(
        {
            "name": "expensive",
            "match": {"agent": "expensive"},
            "mode": "enforce",
            "rules": [{"rule": "run_cost", "limit_usd": "1", "action": "stop"}],
        }
    )
    runs: list[str] = []
    deadline = time.monotonic() + 10
    while not any(
        received.value["alert"] == "run-cost" for received in world.collected.records["alerts"]
    ):
        assert time.monotonic() < deadline, "the policy was not taken over"
        runs.append(trace())
        world.send(
            step(runs[-1], 1, "start", agent="expensive"),
            step(runs[-1], 2, agent="expensive", cost_usd="1.5"),
        )
        world.collected.read(0.5)
    alert = world.wait_for("alerts", lambda value: value["alert"] == "run-cost")
    assert (alert["trace_id"], alert["running"], alert["seq"], alert["state"]) == (
        runs[-1],
        True,
        1,
        "firing",
    )
    assert alert["message"] == "cost $1.50 so far, the limit is $1.00"
    assert alert["run_steps"] == 2
    command = world.wait_for("control", lambda value: value["trace_id"] == runs[-1])
    assert (command["action"], command["by"]) == ("stop", "policy:expensive")
    world.send(*(step(run, 1, agent="expensive") for run in runs))
    world.wait_for(
        "alerts",
        lambda value: value["alert_id"] == alert["alert_id"] and value["state"] == "resolved",
    )


def test_an_expression_is_evaluated_live_and_its_errors_stop_nothing(world: World) -> None:
    """One rule of a policy divides by zero and is reported; the other one stops the run."""
    rules = [
        {"rule": "expr", "alert": "odd", "when": "1 / (run.steps - run.steps) > 0"},
        {
            "rule": "expr",
            "alert": "many-calls",
            "when": "run.calls['refund'] >= 2 && step.status == 'running'",
            "action": "stop",
        },
    ]
    match = {"agent": "refunder"}
    world.put_in_force({"name": "odd", "match": match, "mode": "enforce", "rules": rules})
    run = trace()
    more: dict[str, Any] = {"agent": "refunder", "kind": "tool_call", "tool": "refund"}
    world.send(step(run, 1, "start", agent="refunder"), step(run, 2, **more))
    world.send(step(run, 3, "start", **more))
    command = world.wait_for("control", lambda value: value["trace_id"] == run)
    assert (command["action"], command["by"]) == ("stop", "policy:odd")
    failed = world.wait_for("alerts", lambda value: value["alert"] == "rule-failed")
    assert "division by zero at character 3" in failed["message"]
    world.send(step(run, 3, **more), step(run, 1, agent="refunder"))
    assert world.final(run)["steps"] == 3


def test_a_deadline_is_found_by_time_alone(world: World) -> None:
    """No record comes after the start: a timer finds it, and not before the limit."""
    world.put_in_force(
        {
            "name": "slow",
            "match": {"agent": "slow"},
            "rules": [{"rule": "run_duration", "limit": "1500ms"}],
        }
    )
    run = trace()
    world.send(step(run, 1, "start", agent="slow"))
    alert = world.wait_for(
        "alerts", lambda value: value["alert"] == "run-duration" and value["trace_id"] == run
    )
    # Not before the limit, in the partition's time; how long after it depends on the machine.
    assert alert["value"] >= 1_500_000
    world.send(step(run, 1, agent="slow"))


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("malformed_json", lambda run: (b"{not json", run.encode(), None)),
        ("empty", lambda run: (None, run.encode(), None)),
        (
            "too_large",
            lambda run: (
                # Its other fields make the record larger than the limit.
                msgspec.json.encode(step(run, 1, input="x" * record_bytes(CONTENT_LIMITS))),
                run.encode(),
                None,
            ),
        ),
        ("foreign_key", lambda run: (msgspec.json.encode(step(run, 1)), b"foreign", None)),
        ("missing_key", lambda run: (msgspec.json.encode(step(run, 1)), None, None)),
        ("missing_field", lambda run: (msgspec.json.encode({"trace_id": run}), run.encode(), None)),
        (
            "invalid_field",
            lambda run: (msgspec.json.encode(step(run.upper()[:-1] + "G", 1)), run.encode(), None),
        ),
        (
            "time_out_of_range",
            lambda run: (
                msgspec.json.encode(step(run, 1, end_time=now_us() + 3 * DAY_US)),
                run.encode(),
                None,
            ),
        ),
        (
            "unknown_version",
            lambda run: (
                msgspec.json.encode(step(run, 1)),
                run.encode(),
                [("stepstream-schema", b"step/9")],
            ),
        ),
    ],
)
def test_what_is_no_step_goes_to_the_dead_letter(
    world: World, reason: str, make: Callable[[str], Any]
) -> None:
    """As it came, with the reason and where it was; nothing else comes of it."""
    run = trace(0)
    value, key, headers = make(run)
    # A header of its own finds the record again among those of the other cases.
    mark = f"mark-{next(_numbers)}".encode()
    world.raw(value, key, [*(headers or []), ("mark", mark)])
    received = world.wait_for_record(
        "deadletter", lambda received: received.headers.get("mark") == mark
    )
    assert received.headers["stepstream-reason"] == reason.encode()
    assert (received.headers["stepstream-topic"], received.headers["stepstream-partition"]) == (
        b"steps",
        b"0",
    )
    assert (received.value or None, received.key or None) == (value, key)


def test_odd_trees_are_kept_and_counted(world: World) -> None:
    """A cycle of parents, an orphan and a second root hide no step."""
    run = trace()
    world.send(
        step(run, 1),
        step(run, 2, parent=3),
        step(run, 3, parent=2),
        step(run, 4, parent=99),
        step(run, 5, parent=None),
    )
    got = world.final(run)
    assert (got["steps"], got["orphan_steps"], got["extra_roots"], got["root_step_id"]) == (
        5,
        1,
        1,
        f"{1:016x}",
    )


def test_a_step_on_a_wrong_partition_finds_its_run(world: World) -> None:
    """A producer with another partitioner costs a detour."""
    run = trace(1)
    world.send(step(run, 1, "start"))
    world.send(step(run, 2, cost_usd="0.5"), partition=2)
    world.wait_for("trajectories", lambda value: value["trace_id"] == run and value["steps"] == 2)
    world.send(step(run, 1))
    got = world.final(run)
    assert (got["steps"], got["cost_usd"]) == (2, "0.5")


def test_a_run_without_a_root_closes_after_a_silence(world: World) -> None:
    """Incomplete, with all that was seen; its root, if it comes after all, belongs to it."""
    run = trace()
    world.send(step(run, 2), step(run, 3))
    got = world.final(run)
    assert (got["status"], got["steps"], got["revision"]) == ("incomplete", 2, 5)
    world.send(step(run, 1))
    late = world.wait_for(
        "trajectories", lambda value: value["trace_id"] == run and value["steps"] == 3
    )
    assert (late["status"], late["late_steps"], late["revision"], late["closed"]) == (
        "ok",
        1,
        7,
        True,
    )


def test_sigterm_commits_all_and_the_next_worker_goes_on(world: World) -> None:
    """Nothing is in flight at the end; open runs keep their rules, closed ones know their steps."""
    world.put_in_force(
        {
            "name": "pinned",
            "match": {"agent": "pinned"},
            "rules": [{"rule": "run_steps", "limit": 3}],
        }
    )
    closed, opened = trace(0), trace(0)
    world.send(step(closed, 1, cost_usd="0.5"))
    world.final(closed)
    world.send(step(opened, 1, "start", agent="pinned"), step(opened, 2, agent="pinned"))
    for _ in range(25):  # an open run that needs records so far back is checkpointed
        world.send(step(trace(0), 1))
    wait_until(lambda: opened in state_of(world), 15, "the open run's state")
    wait_until(
        lambda: all(committed == end for committed, end in world.committed().values()),
        30,
        "everything committed",
        every_s=0.3,
    )
    assert world.process.terminate() == 0
    errors = [line for line in world.process.tail(500).splitlines() if "ERROR" in line]
    # The same worker evaluated the rule that divides by zero.
    assert [line for line in errors if "the rule odd/odd had no result" not in line] == []
    assert all(safe == end for safe, end in world.committed().values()), world.committed()

    world.apply(
        {
            "name": "pinned",
            "match": {"agent": "pinned"},
            "rules": [{"rule": "run_steps", "limit": 300}],
        }
    )
    world.send(
        step(closed, 2, cost_usd="0.25"),
        step(opened, 3, agent="pinned"),
        step(opened, 4, agent="pinned"),
    )
    world.start()
    late = world.wait_for(
        "trajectories", lambda value: value["trace_id"] == closed and value["steps"] == 2
    )
    assert (late["cost_usd"], late["late_steps"], late["closed"], late["revision"]) == (
        "0.75",
        1,
        True,
        5,
    )
    found = world.wait_for(
        "findings", lambda value: value.get("trace_id") == opened and value["alert"] == "run-steps"
    )
    assert (found["threshold"], found["policy"]) == (3.0, "pinned")
    whole = world.wait_for(
        "trajectories", lambda value: value["trace_id"] == opened and value["steps"] == 4
    )
    assert whole["revision"] == 2 * 4


def test_gaps_of_a_log_are_distinguished_from_records_that_were_missed(world: World) -> None:
    """A transaction's end takes an offset without a record; outside the log there is nothing."""
    full = topic(world.settings.topic_prefix, "trajectories")
    client = producer(world.settings, **{"transactional.id": f"{world.settings.topic_prefix}-tx"})
    client.init_transactions(20)
    # The end marker of a transaction has an offset and is no record: a reader that counts offsets
    # takes it for a loss.
    start = world.end_of(full)
    for _ in range(2):
        client.begin_transaction()
        client.produce(
            full, msgspec.json.encode({"trace_id": trace(0), "revision": 1}), b"k", partition=0
        )
        client.commit_transaction(20)
    ranges = [
        (0, start),
        (start, start + 1),
        (start + 1, start + 2),
        (start + 1, start + 3),
        (start + 3, start + 9),
    ]
    found = [
        has_records(world.settings, full, 0, first, end) for first, end in ranges if end > first
    ]
    assert found[-4:] == [True, False, True, False]


def test_a_worker_serves_every_metric_that_is_declared(world: World) -> None:
    """Whether or not anything of it has happened yet, with health and readiness."""
    wait_until(
        lambda: world.process.tail(500).count("ready: ") >= PARTITIONS + 2, 30, "a ready worker"
    )
    (url,) = set(re.findall(r"(http://[0-9.:]+)/metrics", world.process.tail(500)))

    def read(path: str) -> str:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return str(answer.read().decode())

    page = read("/metrics")
    declared = {metric.name for metric in METRICS if metric.name.startswith("stepstream_worker_")}
    served = set(re.findall(r"^# HELP (\S+)", page, re.MULTILINE))
    assert {name.removesuffix("_total") for name in declared} <= {
        name.removesuffix("_total") for name in served
    }
    assert re.search(
        r'^stepstream_worker_lag_records{partition="0",topic="[^"]+.steps"} 0.0$',
        page,
        re.MULTILINE,
    )
    assert (read("/healthz"), read("/readyz")) == ("ok\n", "ok\n")


def state_of(world: World) -> dict[str, Any]:
    world.collected.read(0.05)
    return dict(world.collected.states)
