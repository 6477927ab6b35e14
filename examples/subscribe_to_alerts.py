"""Alerts in a program: print each one, and end after a number of them.

python examples/subscribe_to_alerts.py 5
"""

from __future__ import annotations

import itertools
import sys

import stepstream


def follow(count: int) -> None:
    # With a name, the subscription goes on after the last alert that this loop has finished, also
    # after a restart. An alert whose loop body failed is delivered again.
    alerts = stepstream.subscribe(
        "example-printer", since="earliest", severity=["error", "critical"]
    )
    with alerts:
        for alert in itertools.islice(alerts, count):
            print(f"{alert.severity}: {alert.alert} in {alert.project}/{alert.agent}", flush=True)
            print(f"  {alert.message}", flush=True)


if __name__ == "__main__":
    follow(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
