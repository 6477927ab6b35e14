"""``stepstream subscriptions``: subscriptions and their deliveries."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.common import one_of, print_rows
from stepstream.cli.options import Format, FormatOption, takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.schemas.documents import Subscription
    from stepstream.schemas.settings import Settings

PANEL = "Policies, subscriptions, prices"
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the subscription.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Also change a subscription that a watched directory owns.")
]
Texts = list[str] | None
# What the sample is sent with: by the running notifier, or by this command itself.
CHANNEL_SETTINGS = (
    "notify_url",
    "notify_token",
    "notify_allow_private",
    "notify_allow_commands",
    "notify_secrets_dir",
    "notify_secret_variables",
)

# The outcome of a successful delivery in responses of the admin API.
DELIVERED = "told"


def register(app: typer.Typer) -> None:
    found = typer.Typer(
        no_args_is_help=True,
        help="Add, list, test and remove subscriptions; show their deliveries.",
    )
    found.command("add")(add)
    found.command("list")(show)
    found.command("test")(test)
    found.command("remove")(remove)
    found.command("deliveries")(deliveries)
    app.add_typer(found, name="subscriptions", rich_help_panel=PANEL)


@dataclass(frozen=True)
class SubscriptionOptions:
    """Which alerts a subscription receives, and how they are grouped."""

    severity: Annotated[
        Texts, typer.Option(metavar="SEVERITY", help="Only this severity. May be repeated.")
    ] = None
    match: Annotated[
        Texts,
        typer.Option(
            metavar="FIELD=PATTERN",
            help="Only alerts whose field matches, e.g. agent=bot-*.",
        ),
    ] = None
    group_by: Annotated[
        Texts,
        typer.Option(
            metavar="FIELD",
            help="Send alerts with the same value of this field together. May be repeated.",
        ),
    ] = None
    field: Annotated[
        Texts,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Another field of the document, e.g. repeat_interval=4h.",
        ),
    ] = None


@takes("kafka")
def add(
    settings: Settings,
    name: NameArgument,
    channel: Annotated[
        str,
        typer.Argument(
            metavar="CHANNEL", help="Channel: webhook, slack, pagerduty, email, command ..."
        ),
    ],
    channel_options: Annotated[
        Texts,
        typer.Argument(
            metavar="OPTION=VALUE ...",
            help="Options of the channel: url=https://... secret=env:STEPSTREAM_NOTIFY_SECRET_X",
        ),
    ] = None,
    *,
    options: SubscriptionOptions,
    force: ForceOption = False,
) -> None:
    """Add a subscription, or replace the one with this name.

    Secrets are given as references, never as values: `url=env:STEPSTREAM_NOTIFY_SECRET_SLACK`,
    `secret=file:/run/secrets/hook`.
    """
    from stepstream.admin import notify
    from stepstream.schemas.documents import WrongDocument, subscription_of

    to = {channel: _pairs(channel_options)}
    data: dict[str, Any] = {"name": name, "to": to, **_pairs(options.field)}
    match = _pairs(options.match)
    if options.severity:
        match["severity"] = options.severity
    if match:
        data["match"] = match
    if options.group_by:
        data["group_by"] = options.group_by
    try:
        document = subscription_of(data)
    except WrongDocument as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    try:
        echo(f"subscription/{name} {notify.add(settings, document, force=force)}")
        warn_of_variables(settings, document)
    except ValueError as error:
        raise errors.Failure(str(error)) from None


@takes("kafka")
def show(settings: Settings, format: FormatOption = Format.TABLE) -> None:
    """List the subscriptions that are in force."""
    rows = []
    for one in _in_force(settings).values():
        match = ", ".join(
            f"{field}={'|'.join(value) if isinstance(value, tuple) else value}"
            for field, value in one.match
            if value not in ("*", "", ())
        )
        state = "on" if one.enabled else "off"
        rows.append(
            (
                one.name,
                one.channel,
                state,
                match or "everything",
                ", ".join(one.group_by) or "each alert by itself",
            )
        )
    columns = ("name", "channel", "state", "match", "grouped_by")
    empty = "no subscriptions; `stepstream subscriptions add --help` explains how to add one"
    print_rows(columns, rows, format, empty=empty, prose=("match", "grouped_by"))


@takes("kafka", settings=CHANNEL_SETTINGS)
def test(settings: Settings, name: NameArgument) -> None:
    """Send a sample notification through the subscription's channel and print the response.

    It is sent by the notifier at notify_url or of a running `stepstream up`, with its environment
    and network; without a notifier by this command.
    """
    from stepstream.sinks.notify.sample_notification import send_sample
    from stepstream.sinks.notify.service import context_of

    known = _in_force(settings)
    subscription = known.get(name)
    if subscription is None:
        from stepstream.schemas.suggestions import did_you_mean

        raise errors.Failure(f"there is no subscription {name}; {did_you_mean(name, known)}")
    # The notifier has the secrets and the network access that count, so it sends if there is one.
    if settings.notify_url:
        kind, text, where = *_ask(settings, name), "the running notifier"
    else:
        context = context_of(settings)
        outcome = send_sample(subscription, context, time.time_ns() // 1000)
        context.client.close()
        kind, text, where = outcome.label, outcome.text, "this process"
    if kind != DELIVERED:
        raise errors.Failure(f"{subscription.channel} did not take it ({where}): {text}")
    echo(f"{subscription.channel} took it ({where})" + (f": {text}" if text else ""))


@takes("kafka")
def remove(settings: Settings, name: NameArgument, force: ForceOption = False) -> None:
    """Remove a subscription."""
    from stepstream.admin import notify

    try:
        notify.remove(settings, name, force=force)
    except (LookupError, ValueError) as error:
        raise errors.Failure(str(error.args[0])) from None
    echo(f"subscription/{name} deleted")


@takes("kafka")
def deliveries(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this subscription.")] = "",
    *,
    state: Annotated[
        str,
        typer.Option(
            metavar="STATE",
            help="Only this state: pending, failed, delivered, parked, grouped or silenced.",
        ),
    ] = "",
    limit: Annotated[int, typer.Option(metavar="INT", help="Maximum number of rows.")] = 50,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show the newest delivery of each alert, the latest first."""
    from stepstream.common.settings import require_kafka
    from stepstream.render.values import short_id
    from stepstream.schemas.delivery import DELIVERY_STATES
    from stepstream.sinks.notify import latest_records

    one_of("--state", state, DELIVERY_STATES)
    require_kafka(settings)
    found = latest_records.list_deliveries(settings, subscription=name, state=state, limit=limit)
    rows = [
        (
            _time(one.time),
            one.subscription,
            one.channel,
            one.state,
            one.attempts,
            _time(one.next_try),
            one.alert,
            # In JSON and CSV in full, for programs that join by it.
            short_id(one.alert_id) if format is Format.TABLE else one.alert_id,
            one.alert_state,
            one.reason,
        )
        for one in found
    ]
    columns = (
        "time",
        "subscription",
        "channel",
        "state",
        "tries",
        "next_try",
        "alert",
        "alert_id",
        "alert_state",
        "reason",
    )
    empty = "no deliveries" + (" that match" if name or state else " yet")
    # Left out on narrow terminals in this order: the reason explains most, so it goes last.
    leave = ("next_try", "alert_state", "channel", "tries", "time", "reason")
    print_rows(
        columns,
        rows,
        format,
        empty=empty,
        prose=("reason",),
        leave=leave,
        keep=("subscription", "state", "alert_id"),
    )


def warn_of_variables(settings: Settings, document: Subscription) -> None:
    """Warn of variables that a notifier with these settings will not read.

    Only a warning: the notifier may run with other settings.
    """
    from stepstream.schemas.channels import listed_variables, refused_variables

    for refused in refused_variables(
        document.options, listed_variables(settings.notify_secret_variables)
    ):
        remark(f"warning: subscription/{document.name}: {refused}")


def _in_force(settings: Settings) -> dict[str, Subscription]:
    from stepstream.admin import documents
    from stepstream.schemas.documents import Subscription, WrongDocument, decode_document

    found = {}
    for stored in documents.in_force(settings).values():
        if stored.kind == "Subscription":
            try:
                document = decode_document(stored.value)
            except WrongDocument as error:
                # A document of a newer version must not hide the others.
                errors.complain(f"{stored.key} cannot be read by this version: {error}")
                continue
            if isinstance(document, Subscription):
                found[document.name] = document
    return found


def _pairs(texts: Texts) -> dict[str, Any]:
    """Parse ``a=1 b=[x, y]``; a value that begins with [ or { is YAML."""
    import yaml

    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise errors.Failure(f"{text}: write NAME=VALUE", errors.USAGE)
        try:
            # Only lists and mappings are YAML: `channel=#on` or `key=yes` stay texts.
            found[name] = yaml.safe_load(value) if value[:1] in "[{" else value
        except yaml.YAMLError:
            raise errors.Failure(f"{text}: the value is not valid YAML", errors.USAGE) from None
    return found


def _ask(settings: Settings, name: str) -> tuple[str, str]:
    """Let the notifier's admin API send the sample. Returns outcome and response."""
    from urllib.error import HTTPError, URLError
    from urllib.parse import quote
    from urllib.request import Request, urlopen

    url = settings.notify_url.rstrip("/")
    headers = {"Authorization": f"Bearer {settings.notify_token.get_secret_value()}"}
    try:
        with urlopen(
            Request(f"{url}/subscriptions/{quote(name)}/test", method="POST", headers=headers),
            # Longer than the notifier's own limit for a delivery, so that its answer arrives first.
            timeout=150,
        ) as answer:
            found = json.load(answer)
    except HTTPError as error:
        hint = (
            "; set notify_token to a token with the scope admin" if error.code in (401, 403) else ""
        )
        # A proxy in between may answer with a whole page.
        words = error.read(500).decode(errors="replace")
        raise errors.Failure(
            f"the notifier at {url} answered {error.code}: {words}{hint}"
        ) from None
    except URLError as error:
        raise errors.Failure(f"the notifier at {url} does not answer: {error.reason}") from None
    return found["outcome"], found["answer"]


def _time(time_us: int) -> datetime | None:
    from stepstream.schemas.times import time_of

    return time_of(time_us) if time_us else None
