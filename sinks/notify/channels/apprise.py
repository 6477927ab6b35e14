"""Every service that the apprise library supports. The library is imported at its first use."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from typing import Any, Final

from stepstream.schemas.channels import CHANNELS, Channel, Secret
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext, Refused, TemporaryFailure
from stepstream.sinks.notify.confinement import confined
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message

_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
# Services of the machine itself, which no subscription needs.
_LOCAL_SERVICES: Final = frozenset(
    {"dbus", "qt", "glib", "kde", "gnome", "macosx", "windows", "syslog", "file"}
)
_NOTIFY_TYPES: Final = {
    "info": "info",
    "warning": "warning",
    "error": "failure",
    "critical": "failure",
}


@CHANNELS.register("apprise")
class Apprise(Channel):
    """Any service that [apprise](https://github.com/caronc/apprise) supports, by its URL."""

    url: Secret

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Send the message.

        The library resolves names itself, so its connections are checked when it makes them, for
        whichever name, redirect or thread.
        """
        url = context.secret(self.url)
        library, log = _library(), _log_handler().collect()
        if not context.allow_private:
            _refuse_proxies()
        accepted = False
        with confined(network=not context.allow_private) as confinement:
            service: Any = library.Apprise.instantiate(
                _with_timeout(url, self.timeout), suppress_exceptions=True
            )
            if service is None and not confinement.blocked:
                why = f": {log[-1]}" if log else "; see its documentation for the service's form"
                raise Refused(f"apprise does not accept this address{why}")
            if service is not None:
                _refuse_local_service(service)
                log = _log_handler().collect()
                accepted = _notify(service, notification, subscription)
        if confinement.blocked:
            raise Refused(confinement.blocked[0])
        if not accepted:
            raise TemporaryFailure(
                " ".join(log[-2:]) or "apprise could not send it and gives no reason"
            )
        return f"{service.service_name}: accepted"


class _LogHandler(logging.Handler):
    """Collects what apprise logs, by thread: the log is the only place where it gives reasons."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        lines: list[str] | None = getattr(self._local, "lines", None)
        if lines is None:
            return
        if record.levelno >= logging.WARNING or "Exception" in str(record.msg):
            lines.append(record.getMessage())

    def collect(self) -> list[str]:
        """A new list, to which this thread's messages are added from now on."""
        self._local.lines = []
        return self._local.lines  # type: ignore[no-any-return]


def _notify(service: Any, notification: Notification, subscription: Subscription) -> bool:
    """Send it. Returns whether the service accepted it."""
    # Markdown is passed as such, escaped. From plain text the library makes HTML by escaping it.
    is_markdown = str(getattr(service, "notify_format", "text")) == "markdown"
    text = message(notification, subscription, escape.markdown if is_markdown else escape.apart)
    is_resolved = notification.state == "resolved"
    return bool(
        service.notify(
            body=text.body,
            title=text.title,
            notify_type="success" if is_resolved else _NOTIFY_TYPES[notification.severity],
            body_format="markdown" if is_markdown else "text",
        )
    )


def _library() -> Any:
    try:
        return importlib.import_module("apprise")
    except ImportError:
        raise Refused(
            "the package apprise is not installed: pip install 'stepstream[notify]'"
        ) from None


def _with_timeout(url: str, timeout_us: int) -> str:
    seconds = f"{timeout_us / 1e6:g}"
    return f"{url}{'&' if '?' in url else '?'}cto={seconds}&rto={seconds}&redirect=no"


def _refuse_local_service(service: Any) -> None:
    names = _as_set(service, "protocol") | _as_set(service, "secure_protocol")
    if names & _LOCAL_SERVICES:
        raise Refused("apprise services of the machine itself are not allowed")


def _as_set(service: Any, name: str) -> set[str]:
    """An attribute that is one text, several, or None."""
    found = getattr(service, name, None)
    if isinstance(found, (tuple, list, set, frozenset)):
        return {str(one) for one in found}
    return {str(found)} if found else set()


def _refuse_proxies() -> None:
    # The connection to a proxy can be checked, the one that it makes for a request cannot.
    named = sorted(name for name, value in os.environ.items() if name.lower() in _PROXIES and value)
    if named:
        raise Refused(
            f"apprise would send through the proxy in {named[0]}, which bypasses the check of "
            f"addresses: start the notifier without it, or set notify_allow_private"
        )


def _log_handler() -> _LogHandler:
    """The handler of apprise's logger. Nothing is passed on: its messages may contain tokens."""
    log = logging.getLogger("apprise")
    with _lock:
        for handler in log.handlers:
            if isinstance(handler, _LogHandler):
                return handler
        handler = _LogHandler()
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)  # at this level it logs the reasons of failures
        log.propagate = False
        return handler


_lock: Final = threading.Lock()
