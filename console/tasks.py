"""The pages about tasks: queues, executors, what waits and why, the story of one, and commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepstream.admin import task_commands
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import require
from stepstream.console.actions import Actions, text_of
from stepstream.console.encode import answer, plain
from stepstream.console.login import user_of
from stepstream.console.reads import (
    NOW_KEPT_S,
    Endpoint,
    Parameters,
    parameters_of,
    require_read,
    within_projects,
)
from stepstream.console.store import Store
from stepstream.schemas.durations import parse_duration_us
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_state import FINAL
from stepstream.schemas.times import us_of

WAITING_ROWS: Final = 100
RECENT_ROWS: Final = 50
MAX_KEPT: Final = 1_000
Task = dict[str, Any]


class TaskPages:
    """The endpoints below ``/tasks`` and ``/executors``."""

    def __init__(self, settings: Settings, store: Store, actions: Actions) -> None:
        self._settings = settings
        self._store = store
        self._actions = actions
        self._overview: dict[str, tuple[float, Parameters]] = {}

    def routes(self) -> list[BaseRoute]:
        """The paths below /api/v1."""
        reads: dict[str, Endpoint] = {"/tasks": self.overview, "/tasks/{task:path}": self.task}
        acts: dict[str, Callable[[Request, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "/tasks/{task:path}/cancel": self.cancel,
            "/tasks/{task:path}/retry": self.retry,
            "/executors/{executor:path}/drain": self.drain,
        }
        return [
            *(
                Route(f"/api/v1{path}", self._actions.endpoint(work), methods=["POST"])
                for path, work in acts.items()
            ),
            *(
                Route(f"/api/v1{path}", self._endpoint(work), methods=["GET"])
                for path, work in reads.items()
            ),
        ]

    def _endpoint(self, work: Endpoint) -> Any:
        async def endpoint(request: Request) -> Response:
            require_read(request)
            as_of = time.time_ns() // 1_000
            data = {**await work(request), "as_of": as_of}
            accepted = request.headers.get("accept-encoding", "")
            return await self._store.run(lambda: answer(data, accepted))

        return endpoint

    async def overview(self, request: Request) -> Parameters:
        """What the page shows first."""
        given = within_projects(request, parameters_of(request))
        key = repr(sorted(given.items()))
        # One answer for all viewers of a moment.
        at, kept = self._overview.get(key, (0.0, {}))
        if time.monotonic() - at < NOW_KEPT_S:
            return kept
        ask = self._store.ask
        figures, queues, executors, waiting, recent = await asyncio.gather(
            ask("task-figures", **given),
            ask("queues", **given),
            ask("executors", **given),
            ask("tasks", state="waiting", sort="next", limit=WAITING_ROWS, **given),
            ask("tasks", since="1h", sort="changed", limit=RECENT_ROWS, **given),
        )
        found = {
            "figures": plain(figures.records()[0]) if len(figures) else {},
            "queues": plain(queues.records()),
            "executors": plain(executors.records()),
            "waiting": plain(waiting.records()),
            "recent": plain([row for row in recent.records() if row["state"] != "waiting"]),
        }
        if len(self._overview) > MAX_KEPT:
            self._overview.clear()
        self._overview[key] = (time.monotonic(), found)
        return found

    async def task(self, request: Request) -> Parameters:
        """The whole story of a task."""
        found = await self._known(request, parameters_of(request).get("project", ""))
        about = {
            "in_project": found["project"],
            "task": found["task_id"],
            "submitted_us": us_of(found["submitted_at"]),
        }
        events, runs, findings, refusals = await asyncio.gather(
            *(self._store.ask(f"task-{name}", **about) for name in ("events", "runs", "findings")),
            self._store.ask("task-refusals", in_project=found["project"], task=found["task_id"]),
        )
        return {
            "task": plain(found),
            "events": plain(events.records()),
            "runs": plain(runs.records()),
            "findings": plain(findings.records()),
            "refusals": plain(refusals.records()),
        }

    async def _known(self, request: Request, project: str) -> Task:
        """The newest task with the id of the path that the user may see.

        Raises ``WebError`` 404.
        """
        wanted, user = request.path_params["task"], user_of(request.scope)
        if not project and len(user.projects) == 1:
            project = next(iter(user.projects))
        rows = (await self._store.ask("task", id=wanted, project=project or "*")).records()
        # A task of another project is unknown to this user, whatever its id.
        visible = [row for row in rows if user.allows("read", row["project"])]
        exact = [row for row in visible if row["task_id"] == wanted]
        found = exact or (visible if len({row["task_id"] for row in visible}) == 1 else [])
        if not found:
            near = [row["task_id"] for row in visible]
            raise WebError(404, f"no task has the id {wanted[:100]}", nearest=near)
        if len({row["project"] for row in found}) > 1:
            raise WebError(
                400, "several projects have a task with this id: name one, ?project=NAME"
            )
        return found[0]

    async def cancel(self, request: Request, sent: dict[str, Any]) -> dict[str, Any]:
        task = await self._acted_on(request, sent)
        if task["state"] in FINAL:
            raise WebError(409, f"the task has ended ({task['state']}): nothing to cancel")
        return await self._send(request, sent, task, task_commands.cancel_task, "cancel")

    async def retry(self, request: Request, sent: dict[str, Any]) -> dict[str, Any]:
        task = await self._acted_on(request, sent)
        if task["state"] not in FINAL or task["state"] == "ok":
            raise WebError(409, f"the task is {task['state']}: only one that failed is run again")
        return await self._send(request, sent, task, task_commands.retry_task, "retry")

    async def _acted_on(self, request: Request, sent: dict[str, Any]) -> Task:
        task = await self._known(request, text_of(sent, "project"))
        require(request.scope, "act", task["project"])
        return task

    async def _send(
        self,
        request: Request,
        sent: dict[str, Any],
        task: Task,
        command: Callable[..., None],
        action: str,
    ) -> dict[str, Any]:
        by, reason = user_of(request.scope).name, text_of(sent, "reason")
        project, task_id = task["project"], task["task_id"]
        await self._actions.run(
            lambda: command(self._settings, project, task_id, by=by, reason=reason)
        )
        return {"action": action, "project": project, "task_id": task_id, "by": by}

    async def drain(self, request: Request, sent: dict[str, Any]) -> dict[str, Any]:
        executor_id = request.path_params["executor"]
        user = user_of(request.scope)
        rows = (await self._store.ask("executors")).records()
        found = [row for row in rows if row["executor_id"] == executor_id]
        found = [row for row in found if user.allows("read", row["project"])]
        if not found:
            near = [row["executor_id"] for row in rows if user.allows("read", row["project"])]
            raise WebError(404, f"no executor has the id {executor_id[:100]}", nearest=near[:3])
        (project, state), by = (found[0]["project"], found[0]["state"]), user.name
        require(request.scope, "act", project)
        if state not in ("ready", "not_ready"):
            raise WebError(409, f"executor {executor_id[:100]} is {state}: nothing to drain")
        deadline_us = _deadline(sent)
        await self._actions.run(
            lambda: task_commands.drain_executor(
                self._settings, project, executor_id, by=by, deadline_us=deadline_us
            )
        )
        return {"action": "drain", "project": project, "executor_id": executor_id, "by": by}


def _deadline(sent: dict[str, Any]) -> int:
    try:
        return parse_duration_us(sent["deadline"]) if sent.get("deadline") else 0
    except (TypeError, ValueError) as error:
        raise WebError(400, f"deadline: {error}") from None
