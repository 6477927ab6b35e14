"""What the pages read: runs, steps, contents, alerts, and answers to questions."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepstream.admin.versions import package_versions
from stepstream.common.web import body
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import require
from stepstream.console import compare
from stepstream.console.budgets import Budgets
from stepstream.console.encode import answer, columns_of, plain
from stepstream.console.login import require_csrf, user_of
from stepstream.console.store import Store
from stepstream.queries import QUESTIONS, Answer
from stepstream.queries.cost_check import cost_check
from stepstream.queries.pages import NORMAL
from stepstream.queries.parameters import like
from stepstream.queries.question import rows_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.suggestions import nearest_name

MAX_STEPS: Final = 50_000
MAX_LISTED: Final = 1_000
MAX_EXPORT_BYTES: Final = 4 << 20
CONTENT_BYTES: Final = 65_536
MAX_CONTENT_BYTES: Final = 16 << 20
NOW_KEPT_S: Final = 1.0
ENDED_S: Final = 600
READ_ONLY: Final = "this console is read-only (setting console_read_only)"
COST_BY: Final = ("agent", "task", "model", "tool", "user", "version")
# Contents can be large, and a page never asks for them this way.
NOT_ASKED: Final = frozenset({"content", "target", "near", "projects"})

Parameters = dict[str, Any]
Endpoint = Callable[[Request], Awaitable[Any]]


def parameters_of(request: Request, *other: str) -> Parameters:
    """The parameters of the URL without ``other``. Raises ``WebError`` for a repeated one."""
    found: Parameters = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise WebError(400, f"the parameter {name[:100]} is given twice")
        if value and name not in other:
            found[name] = value
    if int_of(found, "limit", MAX_LISTED) > MAX_LISTED:
        raise WebError(400, f"limit is at most {MAX_LISTED:,}")
    return found


def int_of(given: Mapping[str, str], name: str, default: int) -> int:
    """A parameter that is a whole number. Raises ``WebError``."""
    text = given.get(name, "") or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise WebError(400, f"{name} is a whole number, not {text[:40]!r}")
    return int(text)


def within_projects(request: Request, given: Parameters) -> Parameters:
    """The parameters, limited to what the user may see. Raises ``WebError`` 403."""
    projects = user_of(request.scope).projects
    wanted = given.get("project", "")
    if not projects or wanted in projects:
        return given
    if wanted or len(projects) > 1:
        allowed = ", ".join(sorted(projects))
        raise WebError(403, f"name a project that your key may see: {allowed}", nearest=[*projects])
    return {**given, "project": next(iter(projects))}


def endpoint_of(store: Store, work: Endpoint) -> Any:
    """The endpoint that answers what ``work`` returns, to users that may read."""

    async def endpoint(request: Request) -> Response:
        require_read(request)
        as_of = time.time_ns() // 1_000
        found = await work(request)
        accepted = request.headers.get("accept-encoding", "")
        data = {**found, "as_of": as_of}
        return await store.run(lambda: answer(data, accepted))

    return endpoint


class Reads:
    """The endpoints that read the store."""

    def __init__(self, settings: Settings, store: Store, budgets: Budgets) -> None:
        self._settings = settings
        self._budgets = budgets
        self._store = store
        self._now: dict[str, tuple[float, dict[str, Any]]] = {}

    def routes(self) -> list[BaseRoute]:
        """The paths below /api/v1."""
        found: dict[str, Endpoint] = {
            "/session": self.session,
            "/runs": self.runs,
            "/runs/{run}": self.run,
            "/runs/{run}/steps": self.steps,
            "/runs/{run}/steps/{step}/content": self.content,
            "/runs/{run}/band": self.band,
            "/runs/{run}/suspects": self.suspects,
            "/alerts": self.alerts,
            "/alerts/{alert}": self.alert,
            "/now": self.now,
            "/cost": self.cost,
            "/compare": self.compare,
            "/questions": self.questions,
            "/ask/{question}": self.ask,
        }
        cost_check = Route(
            "/api/v1/ask/cost-check", self._endpoint(self.cost_check), methods=["POST"]
        )
        return [
            cost_check,
            *(
                Route(f"/api/v1{path}", self._endpoint(work), methods=["GET"])
                for path, work in found.items()
            ),
        ]

    def _endpoint(self, work: Endpoint) -> Any:
        return endpoint_of(self._store, work)

    async def session(self, request: Request) -> Parameters:
        user = user_of(request.scope)
        read_only = self._settings.console_read_only
        may_act = "act" in user.scopes and not read_only
        reason = READ_ONLY if read_only else "" if may_act else "your key lacks the scope act"
        projects = sorted(user.projects)
        if not projects:
            try:
                projects = list((await self._store.ask("projects")).data["project"])
            except WebError:
                projects = []  # the page is of use without the list
        return {
            "user": user.name,
            "scopes": sorted(user.scopes),
            "may_act": may_act,
            "by_session": user.by_session,
            "read_only": read_only,
            "read_only_reason": reason,
            "projects": projects,
            "version": package_versions()["stepstream"],
            "server_time": time.time_ns() // 1_000,
        }

    async def runs(self, request: Request) -> Parameters:
        given = within_projects(request, parameters_of(request, "facets"))
        found = await self._store.ask("runs", **given)
        listed = {"runs": plain(found.records()), "sentence": found.sentence}
        if request.query_params.get("facets") == "0":
            return listed
        filters = {
            name: value for name, value in given.items() if name not in ("sort", "limit", "offset")
        }
        counted = await self._store.ask("facets", **filters)
        facets: dict[str, list[list[Any]]] = {}
        for row in counted.records():
            facets.setdefault(row["facet"], []).append([row["value"], row["runs"]])
        # Each run has exactly one status, and there are fewer of them than a facet shows.
        matching = sum(count for _, count in facets.get("status", []))
        return {**listed, "facets": facets, "matching": matching, "total": matching}

    async def run(self, request: Request) -> Parameters:
        about = await self.known(request)
        run = about["trace_id"]
        runs, normals, alerts = await asyncio.gather(
            self._store.ask("run", run=run),
            self._store.ask("normal", run=run),
            self._store.ask("alerts", trace=run, since="31d"),
        )
        found, normal = runs.records(), normals.records()[0]
        if not normal["runs"]:
            normal |= dict.fromkeys(NORMAL)
        return {
            "run": plain(found[0]) if found else about,
            "in_store": bool(found),
            "normal": normal,
            "alerts": plain(alerts.records()),
        }

    async def known(self, request: Request, named: str = "") -> Parameters:
        """The run of the path, or the named one, which the user may see.

        Raises ``WebError`` 404 with near ids.
        """
        wanted = named or request.path_params["run"]
        try:
            found = (await self._store.ask("target", run=wanted)).records()
        except WebError as error:
            if error.status not in (400, 404):
                raise
            raise await self._unknown(request, wanted, str(error)) from None
        # A run of another project is unknown to this user, whatever its id.
        if not found or not user_of(request.scope).allows("read", found[0]["project"]):
            raise await self._unknown(request, wanted, f"no run has the id {wanted[:40]}")
        return plain(found[0])  # type: ignore[no-any-return]

    async def _unknown(self, request: Request, named: str, sentence: str) -> WebError:
        wanted = named[:64].strip().lower().replace("-", "")
        projects = user_of(request.scope).projects
        near: list[str] = []
        for project in sorted(projects) or ["*"]:
            found = await self._store.ask("near", id=wanted, project=project)
            near += [str(one) for one in found.data["trace_id"]]
        return WebError(404, sentence, nearest=near[:3])

    async def steps(self, request: Request) -> Parameters:
        about = await self.known(request)
        found = await self._store.ask("steps", run=about["trace_id"], limit=MAX_STEPS + 1)
        count = len(found)
        cut = count > MAX_STEPS
        columns = await self._store.run(lambda: _step_columns(found))
        return {
            "trace_id": about["trace_id"],
            "columns": columns,
            "count": min(count, MAX_STEPS),
            "cut": cut,
        }

    async def content(self, request: Request) -> Parameters:
        about = await self.known(request)
        size = int_of(request.query_params, "bytes", CONTENT_BYTES)
        if not 0 < size <= MAX_CONTENT_BYTES:
            raise WebError(400, f"bytes is between 1 and {MAX_CONTENT_BYTES}")
        step = request.path_params["step"]
        found = await self._store.ask("content", run=about["trace_id"], step=step, bytes=size)
        if not len(found):
            steps = await self._store.ask("steps", run=about["trace_id"], limit=MAX_LISTED)
            near = nearest_name(step, steps.data["step_id"])
            raise WebError(
                404,
                f"run {about['trace_id'][:8]} has no step {step[:40]} in the store",
                nearest=[near] if near else [],
            )
        row = found.records()[0]
        documents = [
            {"id": name, "score": score, "content": text} for name, score, text in row["documents"]
        ]
        return {**plain(row), "documents": documents}

    async def band(self, request: Request) -> Parameters:
        about = await self.known(request)
        rows = (await self._store.ask("band", run=about["trace_id"])).records()
        points = [
            {
                "elapsed_us": row["elapsed_us"],
                **dict(zip(("p5", "p50", "p95"), row["cost_usd"], strict=True)),
            }
            for row in rows
        ]
        return {"runs": rows[0]["runs"] if rows else 0, "points": points}

    async def suspects(self, request: Request) -> Parameters:
        about = await self.known(request)
        return answer_of(await self._store.ask("suspects", run=about["trace_id"]))

    async def compare(self, request: Request) -> Parameters:
        given = parameters_of(request)
        pair = [given.pop(name, "") for name in ("a", "b")]
        if not all(pair):
            raise WebError(400, "name two runs: ?a=ID&b=ID")
        found, ids = [], []
        for one in pair:
            ids.append((await self.known(request, one))["trace_id"])
            steps = await self._store.ask("steps", run=ids[-1], limit=MAX_STEPS)
            found.append(steps.records())
        rows = await self._store.run(lambda: compare.aligned(*found))
        return {
            "question": "compare",
            "columns": list(compare.COLUMNS),
            "rows": plain(rows),
            "sentence": compare.sentence(rows),
            "sql": "",
            "parameters": dict(zip("ab", ids, strict=True)),
        }

    async def alerts(self, request: Request) -> Parameters:
        given = within_projects(request, parameters_of(request))
        given.setdefault("since", "7d")
        found = await self._store.ask("alerts", **given)
        filters = {name: value for name, value in given.items() if name not in ("state", "limit")}
        counted = (await self._store.ask("alert-counts", **filters)).records()
        counts: dict[str, int] = {"firing": 0, "resolved": 0}
        for row in counted:
            counts[row["state"]] = counts.get(row["state"], 0) + row["alerts"]
        return {"alerts": plain(found.records()), "counts": counts}

    async def alert(self, request: Request) -> Parameters:
        wanted = request.path_params["alert"]
        found = (await self._store.ask("alert", id=wanted)).records()
        user = user_of(request.scope)
        found = [row for row in found if user.allows("read", row["project"])]
        if len(found) != 1:
            near = [row["alert_id"] for row in found]
            many = f"several alerts have an id that begins with {wanted[:40]}"
            none = f"no alert has the id {wanted[:40]}"
            raise WebError(404, many if near else none, nearest=near)
        events = await self._store.ask("alert-events", id=found[0]["alert_id"])
        return {"alert": plain(found[0]), "events": plain(events.records())}

    async def now(self, request: Request) -> Parameters:
        given = within_projects(request, parameters_of(request))
        key = repr(sorted(given.items()))
        # One answer for all viewers of a moment.
        at, kept = self._now.get(key, (0.0, {}))
        if time.monotonic() - at < NOW_KEPT_S:
            return kept
        answers = await asyncio.gather(
            self._store.ask("running", **given),
            self._store.ask("normal-costs", **given),
            self._store.ask("ended", **given),
            self._store.ask("spend", **given),
            self._store.ask("alerts", state="firing", limit=50, **given),
            self._store.ask("alert-counts", since="1s", **given),
        )
        running, normal, ended, spend, alerts, counts = (one.records() for one in answers)
        costs = {_kind(row): row["cost_usd"] for row in normal}
        found = {
            "running": [_running(row, costs.get(_kind(row))) for row in running],
            "ended": {**(ended[0] if ended else {"runs": 0, "failed": 0}), "seconds": ENDED_S},
            "alerts": plain(alerts),
            "firing": sum(row["alerts"] for row in counts if row["state"] == "firing"),
            "budgets": self._shown_budgets(given.get("project") or "*"),
            "spend": {
                "hour_usd": sum(row["hour_usd"] for row in spend),
                "hour_before_usd": sum(row["hour_before_usd"] for row in spend),
                "by_agent": [{"agent": row["agent"], "cost_usd": row["hour_usd"]} for row in spend],
            },
        }
        if len(self._now) > MAX_LISTED:
            self._now.clear()
        self._now[key] = (time.monotonic(), found)
        return found

    def _shown_budgets(self, project: str) -> list[Parameters] | None:
        rows = self._budgets.rows()
        if rows is None:
            return None
        return [plain(row) for row in rows if fnmatchcase(row["project"], project)]

    async def cost(self, request: Request) -> Parameters:
        given = within_projects(request, parameters_of(request))
        by = {name: answer_of(await self._store.ask("cost", by=name, **given)) for name in COST_BY}
        return {"by": by, "spikes": answer_of(await self._store.ask("spikes", **given))}

    async def ask(self, request: Request) -> Parameters:
        name = request.path_params["question"]
        question = QUESTIONS.get(name)
        if question is None or name in NOT_ASKED:
            near = nearest_name(name, (one for one in QUESTIONS if one not in NOT_ASKED))
            raise WebError(404, f"there is no question {name[:40]}", nearest=[near] if near else [])
        given = parameters_of(request)
        for parameter in question.parameters:
            if parameter.kind == "run" and given.get(parameter.name):
                await self.known(request, given[parameter.name])
        if any(parameter.name == "project" for parameter in question.parameters):
            given = within_projects(request, given)
        elif user_of(request.scope).projects and not any(
            parameter.kind == "run" for parameter in question.parameters
        ):
            raise WebError(403, f"the question {name} is about all projects, and your key is not")
        return answer_of(await self._store.ask(name, **given))

    async def cost_check(self, request: Request) -> Parameters:
        require_csrf(request.scope)
        if user_of(request.scope).projects:
            raise WebError(403, "cost-check is about all projects, and your key is not")
        sent = await body.read(request.scope, request.receive, max_bytes=MAX_EXPORT_BYTES)
        body.require_json(request.scope)
        given = body.json_object(sent)
        export, provider = given.get("csv"), given.get("provider") or "*"
        if not isinstance(export, str) or not isinstance(provider, str):
            raise WebError(400, "csv is the text of a provider's usage export")
        lines = io.StringIO(export.removeprefix("\ufeff"), newline="")
        found = await self._store.run(
            lambda: self._store.answered(
                "cost-check",
                lambda client, s: cost_check(lines, rows_of(client, s), like(provider)),
            )
        )
        return answer_of(found)

    async def questions(self, _request: Request) -> Parameters:
        return {
            "questions": [
                {
                    "name": one.name,
                    "asks": one.asks,
                    "parameters": [
                        {
                            "name": parameter.name,
                            "kind": parameter.kind,
                            "help": parameter.help,
                            "default": parameter.default,
                            "choices": list(parameter.choices or ()),
                        }
                        for parameter in one.parameters
                    ],
                    "columns": one.columns,
                }
                for one in QUESTIONS.values()
                if one.is_listed
            ]
        }


def require_read(request: Request) -> None:
    """Raise ``WebError`` 403 unless the user may read."""
    require(request.scope, "read")


def answer_of(found: Answer) -> Parameters:
    """An answer of the query layer as the pages read it."""
    return {
        "question": found.question,
        "columns": found.columns,
        "rows": plain(found.rows),
        "sentence": found.sentence,
        "sql": found.sql,
        "parameters": plain(found.parameters),
    }


def _kind(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (row["project"], row["environment"], row["agent"], row["task"])


def _running(row: Parameters, normal: Any) -> Parameters:
    """A running run with its newest open step and the normal cost of its kind."""
    found = {name: value for name, value in row.items() if not name.startswith("last_")}
    last = {
        "step_id": row["last_step_id"],
        "kind": row["last_kind"],
        "name": row["last_name"],
        "tool": row["last_tool"],
        "model": row["last_model"],
        "start_time": row["last_start"],
    }
    return plain({**found, "last_step": last if last["step_id"] else None, "normal": normal})  # type: ignore[no-any-return]


def _step_columns(found: Answer) -> dict[str, Any]:
    """The columns of at most ``MAX_STEPS`` steps, with their ends in place of durations."""
    data = {name: list(values[:MAX_STEPS]) for name, values in found.data.items()}
    if not data:
        return columns_of([], list(found.columns))
    starts, durations = data.pop("start_us"), data.pop("duration_us")
    data["start_time"] = starts
    data["end_time"] = [
        None if took is None else start + took
        for start, took in zip(starts, durations, strict=True)
    ]
    return data
