"""The results to expect at the end: written with each record of the load, without code of the
worker."""

from __future__ import annotations

from dataclasses import dataclass, field

LIVE_WITHIN_US = 60_000_000

# Step and phase.
Record = tuple[str, str]


@dataclass
class Ended:
    """What an ended step adds to the totals."""

    agent: str
    end_us: int
    cost_nanos: int
    input_tokens: int
    output_tokens: int
    status: str


@dataclass
class Expected:
    """Distinct findings about one subject of a run: how many fire, how many resolve.

    ``live``: it is found by a live timer, and such a run has none when its first record was
    appended long after its time.
    """

    firing: int = 1
    resolved: int = 1
    live: bool = False


@dataclass
class RunTruth:
    """One run as it was sent. ``closes``: it comes to an end within the time that is waited for."""

    trace_id: str
    species: str
    agent: str
    closes: bool = True
    records: set[Record] = field(default_factory=set)
    parents: dict[str, str] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    findings: dict[tuple[str, str], Expected] = field(default_factory=dict)
    commands: int = 0
    # Kafka's append time of its first record; 0 before a record was acknowledged.
    first_ms: int = 0

    def appended(self, append_ms: int, own_us: int) -> None:
        """Kafka has appended a record with this time of its own."""
        if self.first_ms and append_ms >= self.first_ms:
            return
        self.first_ms = append_ms
        if append_ms * 1000 - own_us > LIVE_WITHIN_US:
            self.findings = {key: item for key, item in self.findings.items() if not item.live}

    @property
    def final_revision(self) -> int:
        return 2 * len(self.records) + self.closes

    @property
    def cost_nanos(self) -> int:
        return sum(step.cost_nanos for step in self.ended.values())


@dataclass
class Truth:
    """Everything that was sent and must be found."""

    runs: dict[str, RunTruth] = field(default_factory=dict)
    sent: int = 0
    duplicates: int = 0
    rejected: int = 0
    misrouted: int = 0
    delivered: int = 0

    def count(self, *, closed_only: bool = False) -> int:
        """Runs."""
        return sum(1 for run in self.runs.values() if run.closes or not closed_only)

    def expected_findings(self) -> int:
        """Distinct findings."""
        return sum(
            item.firing + item.resolved
            for run in self.runs.values()
            for item in run.findings.values()
        )
