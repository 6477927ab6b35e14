"""Compares the records of the topics with what was sent.

Every difference is one line; ``counts`` has the numbers of what was compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.topics import DEADLETTER_OFFSET, DEADLETTER_PARTITION, DEADLETTER_TOPIC
from tests.chaos.truth import RunTruth, Truth
from tests.support.collector import Collector


def is_settled(truth: Truth, collected: Collector) -> bool:
    """Whether everything expected has arrived. ``problems`` reports what was not expected."""
    final = collected.final()
    if any(
        final.get(trace_id, {}).get("revision") != run.final_revision
        for trace_id, run in truth.runs.items()
    ):
        return False
    if (
        len({record.value["finding_id"] for record in collected.records["findings"]})
        < truth.expected_findings()
    ):
        return False
    # The state of a closed run is written last: with it nothing of the run is under way.
    closed = sum(1 for state in collected.states.values() if state.closed)
    alerts = Counter(record.value["alert_id"] for record in collected.records["alerts"])
    return closed >= truth.count(closed_only=True) and len(alerts) >= sum(
        len(run.findings) for run in truth.runs.values()
    )


def problems(truth: Truth, collected: Collector) -> list[str]:
    """Everything that is wrong."""
    return [
        *_trajectories(truth, collected),
        *_usage(truth, collected),
        *_findings(truth, collected),
        *_alerts(truth, collected),
        *_commands(truth, collected),
        *_dead_letters(truth, collected),
    ]


def counts(truth: Truth, collected: Collector) -> dict[str, int]:
    """The numbers of what was compared, for the report."""
    records = collected.records
    return {
        "runs": len(truth.runs),
        "steps": sum(len(run.parents) for run in truth.runs.values()),
        "records sent": truth.sent,
        "duplicates sent": truth.duplicates,
        "rejected": truth.rejected,
        "misrouted": truth.misrouted,
        "trajectory records": len(records["trajectories"]),
        "usage records": len(records["usage"]),
        "finding records": len(records["findings"]),
        "distinct findings": len({record.value["finding_id"] for record in records["findings"]}),
        "alert records": len(records["alerts"]),
        "distinct alert records": len(
            {(record.value["alert_id"], record.value["seq"]) for record in records["alerts"]}
        ),
        "dead letters": len(records["deadletter"]),
    }


# -- trajectories --


def _trajectories(truth: Truth, collected: Collector) -> Iterator[str]:
    final = collected.final()
    for trace_id in final.keys() - truth.runs.keys():
        yield f"trajectory of a run that was never sent: {trace_id}"
    finals: Counter[str] = Counter()
    for record in collected.records["trajectories"]:
        value, run = record.value, truth.runs.get(record.value["trace_id"])
        # A revision counts the records: a higher one means that a record counted twice.
        if run is not None and value["revision"] > run.final_revision:
            yield (
                f"{_name(run)}: revision {value['revision']} exceeds the true one, "
                f"{run.final_revision}"
            )
        if run is not None and value.get("closed") and value["revision"] == run.final_revision:
            finals[run.trace_id] += not _agrees(run, value)
    for trace_id, wrong in finals.items():
        if wrong:
            yield (
                f"{_name(truth.runs[trace_id])}: {wrong} records of the final revision disagree "
                "with what was sent"
            )
    for run in truth.runs.values():
        yield from _trajectory(run, final.get(run.trace_id), collected)


def _trajectory(run: RunTruth, got: dict[str, Any] | None, collected: Collector) -> Iterator[str]:
    if got is None:
        yield f"{_name(run)}: no trajectory"
        return
    if got["revision"] != run.final_revision:
        yield f"{_name(run)}: revision {got['revision']}, wanted {run.final_revision}"
    if bool(got.get("closed")) != run.closes:
        yield f"{_name(run)}: closed is {got.get('closed', False)}"
    facts = {
        "steps": (got.get("steps", 0), len(run.parents)),
        "ended_steps": (got.get("ended_steps", 0), len(run.ended)),
        "cost": (nanos_from_usd(got.get("cost_usd", "0")), run.cost_nanos),
        "input_tokens": (
            got.get("input_tokens", 0),
            sum(step.input_tokens for step in run.ended.values()),
        ),
        "output_tokens": (
            got.get("output_tokens", 0),
            sum(step.output_tokens for step in run.ended.values()),
        ),
        "agent": (got.get("agent", ""), run.agent),
    }
    for name, (found, wanted) in facts.items():
        if found != wanted:
            yield f"{_name(run)}: {name} is {found}, wanted {wanted}"
    # A path has a bounded number of steps; the state has all of them and is compared below.
    if not got.get("path_truncated") and _path(got) != run.parents:
        yield f"{_name(run)}: the tree is wrong"
    yield from _state(run, collected)


def _state(run: RunTruth, collected: Collector) -> Iterator[str]:
    if not run.closes:
        return
    state = collected.states.get(run.trace_id)
    if state is None or not state.closed:
        yield f"{_name(run)}: no closed state was written"
    elif {info.step_id: info.parent for info in state.steps} != run.parents:
        yield f"{_name(run)}: the tree in its state is wrong"


def _agrees(run: RunTruth, got: dict[str, Any]) -> bool:
    return (
        got.get("steps", 0) == len(run.parents)
        and nanos_from_usd(got.get("cost_usd", "0")) == run.cost_nanos
    )


def _path(got: dict[str, Any]) -> dict[str, str]:
    return {step["step_id"]: step.get("parent_step_id", "") for step in got.get("path", [])}


# -- usage --


def _usage(truth: Truth, collected: Collector) -> Iterator[str]:
    newest: dict[str, dict[tuple[str, str, int], dict[str, Any]]] = defaultdict(dict)
    for record in collected.records["usage"]:
        value = record.value
        if "kind" in value:  # a closed run's summary, or a partition's progress
            continue
        # Records are running totals: of each key the one with the highest revision counts.
        key = (value.get("agent", ""), value.get("agent_version", ""), value["minute"])
        known = newest[value["trace_id"]].get(key)
        if known is None or value["revision"] >= known["revision"]:
            newest[value["trace_id"]][key] = value
    for run in truth.runs.values():
        if run.closes:
            yield from _usage_of(run, newest[run.trace_id])


def _usage_of(run: RunTruth, newest: dict[tuple[str, str, int], dict[str, Any]]) -> Iterator[str]:
    wanted: dict[tuple[str, int], list[int]] = {}
    for step in run.ended.values():
        sums = wanted.setdefault(
            (step.agent or run.agent, step.end_us - step.end_us % MINUTE_US), [0, 0, 0]
        )
        sums[0] += 1
        sums[1] += step.cost_nanos
        sums[2] += step.input_tokens
    found = {
        (agent, minute): [
            value.get("steps", 0),
            nanos_from_usd(value.get("cost_usd", "0")),
            value.get("input_tokens", 0),
        ]
        for (agent, _, minute), value in newest.items()
    }
    # A record of zeros withdraws what was counted for an earlier owner.
    found = {key: sums for key, sums in found.items() if any(sums)}
    if found != {key: sums for key, sums in wanted.items() if any(sums)}:
        yield f"{_name(run)}: usage is {found}, wanted {wanted}"


# -- findings, alerts, commands --


def _findings(truth: Truth, collected: Collector) -> Iterator[str]:
    ids: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    words: dict[str, str] = {}
    for record in collected.records["findings"]:
        value = record.value
        key = (
            value["trace_id"],
            value["alert"],
            value.get("subject", ""),
            value.get("state", "firing"),
        )
        ids[key].add(value["finding_id"])
        words[value["finding_id"]] = value.get("message", "")
    for run in truth.runs.values():
        for (alert, subject), expected in run.findings.items():
            for state, wanted in (("firing", expected.firing), ("resolved", expected.resolved)):
                found = len(ids.pop((run.trace_id, alert, subject, state), ()))
                if found != wanted:
                    yield (
                        f"{_name(run)}: {found} {state} findings {alert} {subject}, wanted {wanted}"
                    )
    for (trace_id, alert, subject, state), found_ids in ids.items():
        run_truth = truth.runs.get(trace_id)
        message = words[next(iter(found_ids))]
        yield (
            f"{_name(run_truth) if run_truth else trace_id}: unwanted {state} finding {alert} "
            f"{subject}: {message}"
        )


def _alerts(truth: Truth, collected: Collector) -> Iterator[str]:
    by_id: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    by_group: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for record in collected.records["alerts"]:
        value = record.value
        by_id[value["alert_id"]][value["seq"]].append(value)
        if not value.get("runs"):  # an incident of many runs exists in addition to their alerts
            by_group[value.get("trace_id", ""), value["alert"], value.get("subject", "")].add(
                value["alert_id"]
            )
    for alert_id, records in by_id.items():
        yield from _alert(alert_id, records)
    for run in truth.runs.values():
        for (alert, subject), expected in run.findings.items():
            group = by_group.pop((run.trace_id, alert, subject), set())
            if len(group) != 1:
                yield f"{_name(run)}: {len(group)} alerts {alert} {subject}, wanted 1"
                continue
            records = by_id[next(iter(group))]
            last = records[max(records)][-1]
            if max(records) != expected.firing + expected.resolved:
                yield (
                    f"{_name(run)}: alert {alert} has seq {max(records)}, wanted "
                    f"{expected.firing + expected.resolved}"
                )
            if (last["state"] == "resolved") != bool(expected.resolved):
                yield f"{_name(run)}: alert {alert} {subject} is {last['state']} in the end"
    for (trace_id, alert, subject), group in by_group.items():
        run_truth = truth.runs.get(trace_id)
        yield (
            f"{_name(run_truth) if run_truth else trace_id}: {len(group)} unwanted alerts {alert} "
            f"{subject}"
        )


def _alert(alert_id: str, records: dict[int, list[dict[str, Any]]]) -> Iterator[str]:
    # A gap would be a change that no subscriber was notified of.
    if sorted(records) != list(range(1, len(records) + 1)):
        yield f"alert {alert_id}: seqs are {sorted(records)}"
    for seq, same in records.items():
        kinds = {
            (
                value["state"],
                value["severity"],
                value.get("runs", 0),
                tuple(value.get("finding_ids", ())),
            )
            for value in same
        }
        # A replay may write a record again, but not another one under the same number.
        if len(kinds) != 1:
            yield f"alert {alert_id} seq {seq} has different contents: {kinds}"


def _commands(truth: Truth, collected: Collector) -> Iterator[str]:
    ids: dict[str, set[str]] = defaultdict(set)
    for record in collected.records["control"]:
        ids[record.value["trace_id"]].add(record.value["command_id"])
    for run in truth.runs.values():
        found = len(ids.get(run.trace_id, ()))
        if found != run.commands:
            yield f"{_name(run)}: {found} commands, wanted {run.commands}"


def _dead_letters(truth: Truth, collected: Collector) -> Iterator[str]:
    places = {
        (
            record.headers[DEADLETTER_TOPIC],
            record.headers[DEADLETTER_PARTITION],
            record.headers[DEADLETTER_OFFSET],
        )
        for record in collected.records["deadletter"]
    }
    # By place: a replay may write a letter twice.
    if len(places) != truth.rejected:
        yield f"{len(places)} records were dead-lettered, wanted {truth.rejected}"


def _name(run: RunTruth) -> str:
    return f"{run.species} {run.trace_id[:8]}"
