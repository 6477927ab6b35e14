"""Every service that the apprise library knows. Imported only when such a channel is used."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from typing import Any, Final

from stepstream.schemas.channels import AppriseUrl
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channels import escape
from stepstream.sinks.notify.channels.confinement import confined
from stepstream.sinks.notify.channels.http_client import Refused, TemporaryFailure
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message

_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_OWN_MACHINE: Final = frozenset(
    {"dbus", "qt", "glib", "kde", "gnome", "macosx", "windows", "syslog", "file"}
)
"""Services of the machine itself, which a subscription has no business with."""


class _Said(logging.Handler):
    """Keeps what apprise says, by thread; it is the only place where it gives reasons."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        lines: list[str] | None = getattr(self._local, "lines", None)
        if lines is not None and (
            record.levelno >= logging.WARNING or "Exception" in str(record.msg)
        ):
            lines.append(record.getMessage())

    def listen(self) -> list[str]:
        """What is said from now on in this thread."""
        self._local.lines = []
        return self._local.lines  # type: ignore[no-any-return]


def send_apprise(
    notification: Notification, subscription: Subscription, options: AppriseUrl, kit: ChannelContext
) -> str:
    """A message to whatever the apprise URL names. The library resolves names itself: its connections are checked as it
    makes them, whichever name, redirect or thread they come from."""
    url = kit.secrets.text(options.url)
    library, said = _library(), _listener().listen()
    if not kit.allow_private:
        _refuse_proxies()
    with confined(network=not kit.allow_private) as confinement:
        service: Any = library.Apprise.instantiate(
            _timed(url, options.timeout), suppress_exceptions=True
        )
        if service is None and not confinement.blocked:
            why = f": {said[-1]}" if said else "; see its documentation for the service's form"
            raise Refused(f"apprise does not take this address{why}")
        if service is not None:
            _refuse_own_machine(service)
            said = _listener().listen()
            taken = _notify(service, notification, subscription)
    if confinement.blocked:
        raise Refused(confinement.blocked[0])
    if not taken:
        raise TemporaryFailure(
            " ".join(said[-2:]) or "apprise could not send it and does not say why"
        )
    return f"{service.service_name}: taken"


def _notify(service: Any, notification: Notification, subscription: Subscription) -> bool:
    """Send it. What is Markdown at the service is given as such, escaped; HTML the library escapes from plain text."""
    is_markdown = str(getattr(service, "notify_format", "text")) == "markdown"
    words = message(notification, subscription, escape.markdown if is_markdown else escape.apart)
    kinds = {"info": "info", "warning": "warning", "error": "failure", "critical": "failure"}
    kind = "success" if notification.state == "resolved" else kinds[notification.severity]
    form = "markdown" if is_markdown else "text"
    return bool(
        service.notify(body=words.body, title=words.title, notify_type=kind, body_format=form)
    )


def _library() -> Any:
    try:
        return importlib.import_module("apprise")
    except ImportError:
        raise Refused(
            "the package apprise is not installed: pip install 'stepstream[notify]'"
        ) from None


def _timed(url: str, timeout_us: int) -> str:
    seconds = f"{timeout_us / 1e6:g}"
    return f"{url}{'&' if '?' in url else '?'}cto={seconds}&rto={seconds}&redirect=no"


def _refuse_own_machine(service: Any) -> None:
    names = {str(one) for one in _listed(service, "protocol") + _listed(service, "secure_protocol")}
    if names & _OWN_MACHINE:
        raise Refused("apprise services of the machine itself are not allowed")


def _listed(service: Any, name: str) -> list[Any]:
    found = getattr(service, name, None)
    return (
        list(found)
        if isinstance(found, (tuple, list, set, frozenset))
        else [found]
        if found
        else []
    )


def _refuse_proxies() -> None:
    """Behind a proxy nobody here sees where a request goes."""
    named = sorted(name for name, value in os.environ.items() if name.lower() in _PROXIES and value)
    if named:
        raise Refused(
            f"apprise would send through the proxy in {named[0]}, past the check of addresses: "
            f"start the notifier without it, or allow private addresses with notify_allow_private"
        )


def _listener() -> _Said:
    """The handler at apprise's logger, which otherwise says nothing: what it logs may hold addresses with tokens."""
    log = logging.getLogger("apprise")
    with _guard:
        for handler in log.handlers:
            if isinstance(handler, _Said):
                return handler
        said = _Said()
        log.addHandler(said)
        log.setLevel(logging.DEBUG)  # where it keeps the reasons of what failed
        log.propagate = False
        return said


_guard: Final = threading.Lock()
