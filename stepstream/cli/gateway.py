"""``stepstream gateway`` and ``stepstream gateway check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.options import takes
from stepstream.cli.processes import LifelineOption, begin
from stepstream.common.terminal import echo

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

HELP = "Run a gateway: it writes OpenTelemetry and JSON from HTTP to Kafka."


def register(app: typer.Typer) -> None:
    """Add the commands. Without one of its own, ``gateway`` runs."""
    group = typer.Typer(help=HELP)
    group.callback(invoke_without_command=True, help=HELP)(gateway)
    group.command("check")(check)
    app.add_typer(group, name="gateway", rich_help_panel="Run")


@takes("kafka", "gateway")
def gateway(
    settings: Settings,
    context: typer.Context,
    from_kafka: Annotated[
        str,
        typer.Option(
            "--from-kafka",
            metavar="TOPIC",
            help="Read what the Kafka exporter of an OpenTelemetry Collector writes to a topic.",
        ),
    ] = "",
    lifeline: LifelineOption = False,
) -> None:
    """Run a gateway until SIGTERM or Ctrl-C, or a command of the group."""
    if context.invoked_subcommand is not None:
        return
    from stepstream.common.settings import require_kafka

    if from_kafka:
        settings = settings.model_copy(update={"gateway_from_kafka": from_kafka})
    begin(settings, lifeline)
    require_kafka(settings)
    # Imported last: with wrong settings the command fails before it loads the server.
    from stepstream.admin.gateway import run
    from stepstream.producers.transport.redactor import hook_of

    try:
        hook_of(settings)
    except ValueError as error:
        raise errors.Failure(str(error)) from None
    raise typer.Exit(run(settings))


@takes(settings=("gateway_url", "state_dir"))
def check(
    settings: Settings,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key to send with.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print the variables.")] = False,
) -> None:
    """Send a span to the gateway and print the environment variables for each framework.

    The gateway is the one of `stepstream up`, or at --gateway-url. From this machine no key is
    needed where it listens on loopback.
    """
    url = settings.gateway_url.rstrip("/")
    if not url:
        raise errors.Failure(
            "no gateway is known: start `stepstream up`, or give --gateway-url http://host:4318"
        )
    if "://" not in url:
        url = f"http://{url}"
    from stepstream.admin import gateway_check

    outcome = gateway_check.send_span(url, key)
    if not outcome.taken:
        raise errors.Failure(f"the gateway at {url} did not take a span: {outcome.sentence}")
    echo(f"the gateway at {url} took a span: run {outcome.trace_id}")
    if not quiet:
        echo("")
        for line in gateway_check.variables(url, key):
            echo(line)
