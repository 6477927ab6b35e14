"""Commands to runs by a gateway, and ``stepstream.send_command``, which sends by either way."""

from __future__ import annotations

import time
import urllib.error
from typing import cast, get_args

import msgspec

from stepstream.common.gateway_requests import post, refusal
from stepstream.schemas.alert import Command, CommandAction, CommandStruct
from stepstream.schemas.endpoint import is_http, split_http_endpoint
from stepstream.schemas.ids import TRACE_ID
from stepstream.schemas.money import amount_nanos
from stepstream.schemas.settings import Settings


class CommandNotSent(Exception):
    """The command was not sent: the message has the reason."""


def send_by_gateway(
    settings: Settings,
    trace_id: str,
    action: CommandAction,
    *,
    by: str = "",
    reason: str = "",
    budget_usd: str = "",
) -> Command:
    """Send a command to one run by the gateway at the setting ``endpoint``.

    Returns when Kafka has acknowledged it. The key needs the scope ``act``. Raises
    ``CommandNotSent``.
    """
    fields = {"action": action, "by": by, "reason": reason, "budget_usd": budget_usd}
    return _sent(settings, f"/v1/runs/{trace_id}/control", fields)


def send_to_scope_by_gateway(
    settings: Settings,
    action: CommandAction,
    *,
    project: str,
    agent: str = "",
    environment: str = "",
    by: str = "",
    reason: str = "",
    lasts: str = "",
) -> Command:
    """Send a command to all runs of a project, or of an agent in it, as ``send_by_gateway``.

    It also applies to runs that start within the duration ``lasts``.
    """
    fields = {
        "action": action,
        "project": project,
        "agent": agent,
        "environment": environment,
        "by": by,
        "reason": reason,
        "for": lasts,
    }
    return _sent(settings, "/v1/control", fields)


def _sent(settings: Settings, path: str, fields: dict[str, str]) -> Command:
    url, _, base = split_http_endpoint(settings.endpoint)
    try:
        body = post(
            f"{url}{base}{path}",
            settings.endpoint_key.get_secret_value(),
            {name: text for name, text in fields.items() if text},
        )
    except urllib.error.HTTPError as error:
        hint = ""
        if error.code in (401, 403):
            hint = "; endpoint_key must be a key of `stepstream keys create --act`"
        raise CommandNotSent(f"{url}: {refusal(error)}{hint}") from None
    except OSError as error:
        reason_text = getattr(error, "reason", error)
        raise CommandNotSent(f"{url} cannot be reached: {reason_text}") from None
    try:
        return msgspec.json.decode(body, type=CommandStruct)
    except msgspec.MsgspecError:
        raise CommandNotSent(f"{url} does not answer as a gateway") from None


def send_command(
    trace_id: str,
    action: str,
    *,
    reason: str = "",
    by: str = "",
    budget_usd: str = "",
    settings: Settings | None = None,
) -> Command:
    """Send ``stop``, ``pause``, ``resume`` or ``warn`` to a run, over Kafka or by a gateway.

    ``budget_usd`` with ``resume`` approves this many dollars more. ``settings`` is by default what
    ``STEPSTREAM_*`` variables, a settings file or a running ``stepstream up`` have. Returns when
    Kafka has acknowledged the command; the run applies it when its next step begins. Raises
    ``ValueError`` for a wrong argument and ``CommandNotSent``.
    """
    from stepstream.common import settings as loader
    from stepstream.common.person import who

    if action not in get_args(CommandAction):
        raise ValueError(f"action is one of {', '.join(get_args(CommandAction))}, not {action!r}")
    if TRACE_ID.fullmatch(trace_id) is None:
        raise ValueError(f"a run is named by its trace id, 32 hex digits, not {trace_id!r}")
    if budget_usd and action != "resume":
        raise ValueError("budget_usd goes with resume")
    if budget_usd and amount_nanos(budget_usd) <= 0:
        raise ValueError(f"budget_usd={budget_usd!r}: give the dollars to add")
    chosen = loader.load() if settings is None else settings
    what = cast(CommandAction, action)
    if is_http(chosen.endpoint):
        return send_by_gateway(
            chosen, trace_id, what, by=by or who(), reason=reason, budget_usd=budget_usd
        )
    # Not at the top: programs that use a gateway need no Kafka client.
    from stepstream.admin.commands import Target, send_to_run
    from stepstream.common.kafka import KafkaUnreachable

    loader.require_kafka(chosen)
    try:
        return send_to_run(
            chosen,
            Target(trace_id, project=chosen.project),
            what,
            by=by or who(),
            reason=reason,
            budget_usd=budget_usd,
            now_us=time.time_ns() // 1_000,
        )
    except KafkaUnreachable as error:
        raise CommandNotSent(str(error)) from error
