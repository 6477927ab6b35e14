"""What people do in the console: commands to runs, and actions on alerts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from confluent_kafka import KafkaException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepstream.admin import alert_actions
from stepstream.admin.commands import Target, send_to_run
from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.web import body
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import require
from stepstream.console.encode import answer
from stepstream.console.login import Login, require_csrf, user_of
from stepstream.console.reads import READ_ONLY, Reads
from stepstream.schemas.alert import CommandAction
from stepstream.schemas.alert_actions import Action
from stepstream.schemas.control import control_step_id
from stepstream.schemas.durations import parse_duration_us
from stepstream.schemas.ids import TRACE_ID
from stepstream.schemas.money import amount_nanos
from stepstream.schemas.settings import Settings

BODY_BYTES: Final = 65_536
MAX_REASON_CHARS: Final = 1_000
COMMANDS: Final[dict[str, CommandAction]] = {
    "stop": "stop",
    "pause": "pause",
    "resume": "resume",
    # An approval is a resume that raises the limits.
    "approve": "resume",
}
ALERT_ACTIONS: Final[dict[str, Action]] = {
    "acknowledge": "acknowledged",
    "silence": "silenced",
    "resolve": "resolved",
}
Work = Callable[[Request, dict[str, Any]], Awaitable[dict[str, Any]]]


class Actions:
    """The endpoints that change something."""

    def __init__(self, settings: Settings, reads: Reads, login: Login) -> None:
        self._settings = settings
        self._reads = reads
        self._login = login
        # Sending waits for Kafka's acknowledgement, which must not block the event loop.
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="act")

    def routes(self) -> list[BaseRoute]:
        """The paths below /api/v1."""
        found: list[BaseRoute] = [
            Route(f"/api/v1/runs/{{run}}/{name}", self.endpoint(self._command(name)))
            for name in COMMANDS
        ]
        found += [
            Route(f"/api/v1/alerts/{{alert}}/{name}", self.endpoint(self._alert(name)))
            for name in ALERT_ACTIONS
        ]
        found.append(Route("/api/v1/logout", self._logout))
        for route in found:
            assert isinstance(route, Route)
            route.methods = {"POST"}
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def endpoint(self, work: Work) -> Any:
        """An endpoint that only users with the scope ``act`` may call."""

        async def endpoint(request: Request) -> Response:
            require(request.scope, "act")
            # A page of another site can make the browser send the cookie, but not this header.
            require_csrf(request.scope)
            if self._settings.console_read_only:
                raise WebError(403, READ_ONLY, code="read_only")
            return answer(await work(request, await _object(request)))

        return endpoint

    async def run(self, work: Callable[[], Any]) -> Any:
        """Run ``work``, which waits for Kafka, in a thread. Raises ``WebError`` 503."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (KafkaUnreachable, KafkaException) as error:
            raise WebError(
                503, str(error), {"Retry-After": "5"}, code="kafka_unavailable"
            ) from None

    def _command(self, name: str) -> Work:
        async def work(request: Request, sent: dict[str, Any]) -> dict[str, Any]:
            reason = text_of(sent, "reason")
            budget = _budget(sent) if name == "approve" else ""
            target = await self._target(request, name)
            by = user_of(request.scope).name
            command = await self.run(
                lambda: send_to_run(
                    self._settings,
                    target,
                    COMMANDS[name],
                    by=by,
                    reason=reason,
                    budget_usd=budget,
                    now_us=time.time_ns() // 1_000,
                )
            )
            return {
                "command_id": command.command_id,
                "action": name,
                "trace_id": target.trace_id,
                "by": by,
                "time": command.time,
                "step_id": control_step_id(target.trace_id, command.command_id),
            }

        return work

    async def _target(self, request: Request, action: str) -> Target:
        """The run of the path. Raises ``WebError`` 404, and 409 for one that has ended."""
        wanted = request.path_params["run"]
        try:
            found = await self._reads.known(request)
        except WebError as error:
            # Stopping a run must not depend on the store: agents need only Kafka for it.
            can_name = error.code == "store_unavailable" and TRACE_ID.fullmatch(wanted)
            # Without the store the run's project is unknown, so users of some projects are refused.
            if not can_name or user_of(request.scope).projects:
                raise
            return Target(wanted)
        status = found.pop("status")
        if status != "running":
            raise WebError(409, f"run {found['trace_id'][:8]} has ended ({status}): no {action}")
        require(request.scope, "act", found["project"])
        return Target(**found)

    def _alert(self, name: str) -> Work:
        async def work(request: Request, sent: dict[str, Any]) -> dict[str, Any]:
            until_us = 0
            if name == "silence":
                until_us = time.time_ns() // 1_000 + _duration(sent)
            user, message = user_of(request.scope), text_of(sent, "message")
            wanted = request.path_params["alert"]

            def act() -> Any:
                alert = alert_actions.find_alert(self._settings, wanted)
                if alert is None or not user.allows("act", alert.project):
                    raise WebError(
                        404, f"no alert, or more than one, has an id that begins with {wanted[:40]}"
                    )
                if alert.state == "resolved":
                    raise WebError(409, f"alert {alert.alert_id[:8]} is resolved: no {name}")
                return alert_actions.act(
                    self._settings,
                    alert,
                    ALERT_ACTIONS[name],
                    by=user.name,
                    until_us=until_us,
                    message=message,
                )

            try:
                done = await self.run(act)
            except alert_actions.NotTaken as error:
                raise WebError(503, str(error), {"Retry-After": "5"}) from None
            return {"alert": done.model_dump(mode="json")}

        return work

    async def _logout(self, request: Request) -> Response:
        require_csrf(request.scope)
        await _object(request)
        await self.run(lambda: self._login.sign_out(request.scope))
        secure = request.scope["scheme"] == "https"
        return answer({}, headers={"Set-Cookie": self._login.set_cookie("", secure=secure)})


async def _object(request: Request) -> dict[str, Any]:
    """The JSON object of the body. Raises ``WebError``."""
    sent = await body.read(request.scope, request.receive, max_bytes=BODY_BYTES)
    body.require_json(request.scope)
    return body.json_object(sent)


def text_of(sent: dict[str, Any], name: str) -> str:
    """A text of the body. Raises ``WebError``."""
    value = sent.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_REASON_CHARS:
        raise WebError(400, f"{name} is a text of at most {MAX_REASON_CHARS:,} characters")
    return value


def _budget(sent: dict[str, Any]) -> str:
    """The dollars to add, or "" for none: the run goes on within its limits."""
    text = str(sent.get("budget_usd") or "").removeprefix("$")
    if not text:
        return ""
    try:
        is_positive = amount_nanos(text) > 0
    except (TypeError, ValueError):
        is_positive = False
    if not is_positive:
        raise WebError(400, 'budget_usd is the dollars to add, such as "5"')
    return text


def _duration(sent: dict[str, Any]) -> int:
    try:
        return parse_duration_us(sent.get("for", "1h"))
    except (TypeError, ValueError) as error:
        raise WebError(400, f"for: {error}") from None
