"""How much baselines have learnt, as text: ``support/refund: learning 12 of 30 runs``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stepstream.stream.baselines.history import MIN_RUNS, Owner

MOST_NAMED = 3


def with_wider(runs: Mapping[Owner, int]) -> dict[Owner, int]:
    """Runs by agent and task, with their sums by agent and by project."""
    counts: dict[Owner, int] = {}
    for owner, count in runs.items():
        for wider in owner.wider():
            counts[wider] = counts.get(wider, 0) + count
    return counts


def name_of(owner: Owner) -> str:
    """``environment/agent/task``, or ``project NAME`` for an owner without an agent."""
    if not owner.agent:
        return f"project {owner.project}"
    return "/".join(part for part in (owner.environment, owner.agent, owner.task) if part)


def learning(
    counts: Mapping[Owner, int], owners: Iterable[Owner], wanted: int = MIN_RUNS
) -> list[str]:
    """A line for each owner with fewer than ``wanted`` runs, and the wider baseline used meanwhile.

    ``counts`` has the runs by task, agent and project. At most ``MOST_NAMED`` lines, then one with
    the number of further owners.
    """
    lines = []
    for owner in sorted(set(owners)):
        count = counts.get(owner, 0)
        if count >= wanted:
            continue
        wider_owner = next(
            (wider for wider in owner.wider()[1:] if counts.get(wider, 0) >= wanted), None
        )
        meanwhile = (
            f", compared with {name_of(wider_owner)} meanwhile" if wider_owner is not None else ""
        )
        lines.append(f"{name_of(owner)}: learning {count} of {wanted} runs{meanwhile}")
    more = len(lines) - MOST_NAMED
    # One line more is printed rather than replaced by "and 1 more".
    return [*lines[:MOST_NAMED], f"and {more} more"] if more > 1 else lines
