"""The pages about evaluation: experiments, verdicts with their trials, and success over time."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from stepstream.common.web.errors import WebError
from stepstream.console.encode import plain
from stepstream.console.login import user_of
from stepstream.console.reads import (
    Parameters,
    answer_of,
    endpoint_of,
    parameters_of,
    within_projects,
)
from stepstream.console.store import Store

SINCE: Final = "30d"
# What one page can show; the question `trials` has more.
MAX_TRIALS: Final = 20_000


class EvalPages:
    """The endpoints below /api/v1/evals."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/v1/evals", endpoint_of(self._store, self._all), methods=["GET"]),
            Route("/api/v1/evals/{id}", endpoint_of(self._store, self._one), methods=["GET"]),
        ]

    async def _all(self, request: Request) -> Parameters:
        given = within_projects(request, {"since": SINCE, **parameters_of(request)})
        names = ("verdicts", "experiments", "success", "failed-criteria")
        answers = await asyncio.gather(*(self._store.ask(name, **given) for name in names))
        return {
            name.replace("-", "_"): answer_of(one) for name, one in zip(names, answers, strict=True)
        }

    async def _one(self, request: Request) -> Parameters:
        """A verdict, or published results, with their trials by case."""
        wanted = request.path_params["id"]
        verdict = await self._only("verdict", request, wanted)
        if verdict is None:
            results = await self._only("experiment", request, wanted)
            if results is None:
                raise WebError(404, f"no verdict and no results have the id {wanted[:40]}")
            return {"verdict": None, "results": plain(results), **await self._trials(results)}
        found = plain({name: value for name, value in verdict.items() if name != "verdict"})
        found["found"] = json.loads(verdict["verdict"])
        return {"verdict": found, "results": None, **await self._trials(verdict)}

    async def _only(self, question: str, request: Request, wanted: str) -> Parameters | None:
        rows = (await self._store.ask(question, id=wanted)).records()
        user = user_of(request.scope)
        rows = [row for row in rows if user.allows("read", row["project"])]
        if len(rows) > 1:
            raise WebError(404, f"several have an id that begins with {wanted[:40]}")
        return rows[0] if rows else None

    async def _trials(self, about: Parameters) -> Parameters:
        """The trials by case, those of each side in their order."""
        sides = {"baseline": about.get("baseline_id"), "candidate": about.get("candidate_id")}
        if sides["candidate"] is None:
            sides = {"candidate": about["results_id"]}
        ids = ",".join(str(one) for one in sides.values())
        found = await self._store.ask("trials", ids=ids, limit=MAX_TRIALS + 1)
        cases: dict[str, dict[str, list[Any]]] = {}
        for row in found.records()[:MAX_TRIALS]:
            of_case = cases.setdefault(row["case_id"], {"baseline": [], "candidate": []})
            # The same results may be on both sides.
            for side, results_id in sides.items():
                if row["results_id"] == results_id:
                    of_case[side].append(_trial(row))
        return {
            "cases": plain([{"case": name, **of_case} for name, of_case in cases.items()]),
            "cut": len(found) > MAX_TRIALS,
        }


def _trial(row: Parameters) -> Parameters:
    """A trial as the page shows it; ``trace_id`` is empty where its run is not in the store."""
    return {
        "trial": row["trial"],
        "success": row["success"],
        "crashed": row["crashed"],
        "reason": row["reason"],
        "cost_usd": row["cost_usd"],
        "latency_s": row["latency_s"],
        "trace_id": row["trace_id"] if row["in_store"] else "",
    }
