"""What baselines know of each agent and task, in words: ``support/refund: learning 12 of 30 runs``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stepstream.stream.baselines.history import MIN_RUNS, Owner

MOST_NAMED = 3


def with_wider(runs: Mapping[Owner, int]) -> dict[Owner, int]:
    """Runs by agent and task, and summed up by agent and by project."""
    counts: dict[Owner, int] = {}
    for owner, count in runs.items():
        for wider in owner.wider():
            counts[wider] = counts.get(wider, 0) + count
    return counts


def name_of(owner: Owner) -> str:
    """The owner as people write it."""
    if not owner.agent:
        return f"project {owner.project}"
    return "/".join(part for part in (owner.environment, owner.agent, owner.task) if part)


def learning(
    counts: Mapping[Owner, int], owners: Iterable[Owner], wanted: int = MIN_RUNS
) -> list[str]:
    """A line for each of these owners that has too few runs to be judged by its own, and who judges it meanwhile.

    ``counts`` has them by task, agent and project. At most ``MOST_NAMED``, the last one saying how many more there are.
    """
    lines = []
    for owner in sorted(set(owners)):
        count = counts.get(owner, 0)
        if count >= wanted:
            continue
        judge = next((wider for wider in owner.wider()[1:] if counts.get(wider, 0) >= wanted), None)
        meanwhile = f", judged by {name_of(judge)} meanwhile" if judge is not None else ""
        lines.append(f"{name_of(owner)}: learning {count} of {wanted} runs{meanwhile}")
    more = len(lines) - MOST_NAMED
    return [*lines[:MOST_NAMED], f"and {more} more"] if more > 1 else lines
