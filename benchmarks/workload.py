"""How requests to language models arrive and how large they are: from recorded traces, else from
what was fitted to them.

Where ``STEPSTREAM_DATA`` names a folder with ``azure_llm`` (Azure's LLM inference trace: an hour of
conversation requests) and ``mooncake`` (Mooncake's conversation trace), gaps between arrivals and
pairs of input and output tokens are drawn from them. Otherwise they come from lognormal
distributions whose parameters were fitted to those traces.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Final

AZURE: Final = Path("azure_llm/AzureLLMInferenceTrace_conv.csv.gz")
MOONCAKE: Final = Path("mooncake/conversation_trace.jsonl.gz")

# ln(x) ~ N(mu, sigma): maximum likelihood for tokens; gaps by their coefficient of variation
# (1.09), with mean 1.
GAP_SIGMA: Final = math.sqrt(math.log(1 + 1.09**2))
SHORT_INPUT: Final = (6.63, 0.99)
SHORT_OUTPUT: Final = (5.02, 0.86)
LONG_INPUT: Final = (8.74, 1.20)
LONG_OUTPUT: Final = (5.34, 1.36)
LONG_SHARE: Final = 0.38
MOST_TOKENS: Final = 200_000

Pair = tuple[int, int]


@dataclass(frozen=True)
class Workload:
    """``gap(rng)`` between arrivals, with mean 1, and ``tokens(rng)``: input and output of one
    call. ``source`` names the distribution."""

    source: str
    gap: Callable[[random.Random], float]
    tokens: Callable[[random.Random], Pair]


def data_folder() -> Path:
    """Where real data is looked for: ``$STEPSTREAM_DATA``, else ``../shared/data`` from the
    project's root."""
    return Path(
        os.environ.get("STEPSTREAM_DATA")
        or Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    )


def workload(folder: Path | None = None) -> Workload:
    """The recorded workload where its files are there, else the fitted one."""
    folder = folder or data_folder()
    if not ((folder / AZURE).exists() and (folder / MOONCAKE).exists()):
        return fitted()
    return recorded(folder)


def fitted() -> Workload:
    """Lognormal gaps and sizes."""
    return Workload(
        "lognormal, fitted to Azure's and Mooncake's traces", _fitted_gap, _fitted_tokens
    )


def _fitted_gap(rng: random.Random) -> float:
    return rng.lognormvariate(-(GAP_SIGMA**2) / 2, GAP_SIGMA)


def _fitted_tokens(rng: random.Random) -> Pair:
    size_in, size_out = (
        (LONG_INPUT, LONG_OUTPUT) if rng.random() < LONG_SHARE else (SHORT_INPUT, SHORT_OUTPUT)
    )
    return _bounded(rng.lognormvariate(*size_in), rng.lognormvariate(*size_out))


def _bounded(size_in: float, size_out: float) -> Pair:
    return max(1, min(MOST_TOKENS, int(size_in))), max(1, min(MOST_TOKENS, int(size_out)))


def recorded(folder: Path) -> Workload:
    """Drawn with replacement from the traces."""
    times, pairs = _azure(folder / AZURE)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = fmean(gaps)
    relative = [gap / mean for gap in gaps]
    pairs += _mooncake(folder / MOONCAKE)
    return Workload(
        "Azure's and Mooncake's traces",
        lambda rng: rng.choice(relative),
        lambda rng: rng.choice(pairs),
    )


def _azure(file: Path) -> tuple[list[float], list[Pair]]:
    times, pairs = [], []
    with gzip.open(file, "rt") as lines:
        for row in csv.DictReader(lines):
            times.append(datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp())
            pairs.append(_bounded(float(row["ContextTokens"]), float(row["GeneratedTokens"])))
    return times, pairs


def _mooncake(file: Path) -> list[Pair]:
    with gzip.open(file, "rt") as lines:
        rows = map(json.loads, lines)
        return [_bounded(row["input_length"], row["output_length"]) for row in rows]
