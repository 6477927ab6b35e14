"""Simulations of the evaluation: how often the gate errs, what it finds, how exact it is."""

from __future__ import annotations

from typing import Final

PARTS: Final = {
    "gate": "false fails of an unchanged agent, power, trials needed",
    "coverage": "how often the printed intervals contain the true value",
    "replay": "strict replays of recorded runs that are equal, and changes that are named",
    "agreement": "Criteria made from expected actions, compared with a benchmark's rewards",
}
