"""How well detectors find what they should, on real data: ``python -m benchmarks.detection [PART
...] [--json FILE]``.

A part is a module here with ``measure(report, arguments)``, named in ``PARTS``. It reads its cases
from ``$STEPSTREAM_DATA`` (``../shared/data`` where that is not set) and raises ``MissingData``
where they are absent: the part is then skipped, with the folder in the message. Results are
precision, recall, how early, and false alarms per 100, each with an interval
(``benchmarks.detection.score``) and compared with a simple baseline.
"""

from __future__ import annotations

from typing import Final

# What each part measures, by the name of its module.
PARTS: Final[dict[str, str]] = {
    "cost": "runs that cost far more than usual, found while they are still going (trail_gaia)",
    "hidden": "hidden tool errors in any wording, errors not retried, wrong arguments (tau_bench)",
    "waste": "loops, waste and retrieval that does not serve, against people's labels (trail_gaia)",
    "forms": (
        "failures behind preambles, at ends, as rejected edits, error pages, time-outs (made "
        "outputs)"
    ),
    "shapes": (
        "failures recovered from or ignored, repetition and bulk work or housekeeping (made runs)"
    ),
    "clean": "alerts per 1,000 runs that went well, by rule and severity (tau_bench)",
    "injection": "instructions in outputs that calls follow (made), clean runs (tau_bench, ...)",
    "blame": "the message that people blame for a failure, against its position (who_and_when)",
    "contents_cost": "microseconds that reading contents costs per ended step",
    "series": "spikes, drifts and shifts in 30 days of cost and latency (azure_llm, mooncake)",
}
