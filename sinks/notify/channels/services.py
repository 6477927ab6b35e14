"""E-mail and every other service that the apprise library knows. Imported only when such a channel is used."""

from __future__ import annotations

import importlib
import logging
import threading
from typing import Any, Final
from urllib.parse import quote

from stepstream.schemas.channels import AppriseUrl, Email
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channels.guard import Forbidden, addresses
from stepstream.sinks.notify.channels.http import Refused, Trouble
from stepstream.sinks.notify.channels.webhook import Kit
from stepstream.sinks.notify.group import Notification
from stepstream.sinks.notify.message import message

_PORTS: Final = {"starttls": "mailtos", "tls": "mailtos", "none": "mailto"}
_MODES: Final = {"starttls": "starttls", "tls": "ssl", "none": "insecure"}
_OWN_MACHINE: Final = frozenset({"dbus", "qt", "glib", "kde", "gnome", "macosx", "windows", "syslog", "file"})
"""Services of the machine itself, which a subscription has no business with."""


class _Said(logging.Handler):
    """Keeps what apprise says, by thread; it is the only place where it gives reasons."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        lines: list[str] | None = getattr(self._local, "lines", None)
        if lines is not None and (record.levelno >= logging.WARNING or "Exception" in str(record.msg)):
            lines.append(record.getMessage())

    def listen(self) -> list[str]:
        """What is said from now on in this thread."""
        self._local.lines = []
        return self._local.lines  # type: ignore[no-any-return]


def send_email(notification: Notification, subscription: Subscription, options: Email, kit: Kit) -> str:
    """A mail to all recipients."""
    login = f"{quote(options.user, safe='')}:{quote(kit.secrets.text(options.password), safe='')}@" if options.user else ""
    query = {
        "from": options.sender,
        "to": ",".join(options.to),
        "mode": _MODES[options.encryption],
        "smtp": options.host,
        "format": "text",
    }
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    url = f"{_PORTS[options.encryption]}://{login}{options.host}:{options.port}?{text}"
    return _notify(url, notification, subscription, options.timeout, kit)


def send_apprise(notification: Notification, subscription: Subscription, options: AppriseUrl, kit: Kit) -> str:
    """A message to whatever the apprise URL names."""
    return _notify(kit.secrets.text(options.url), notification, subscription, options.timeout, kit)


def _notify(url: str, notification: Notification, subscription: Subscription, timeout_us: int, kit: Kit) -> str:
    service: Any = _library().Apprise.instantiate(_timed(url, timeout_us), suppress_exceptions=True)
    if service is None:
        raise Refused("apprise does not know such a URL; see its documentation for the service's form")
    _check(service, kit)
    words = message(notification, subscription)
    kinds = {"info": "info", "warning": "warning", "error": "failure", "critical": "failure"}
    kind = "success" if notification.state == "resolved" else kinds[notification.severity]
    said = _listener().listen()
    if not service.notify(body=words.body, title=words.title, notify_type=kind, body_format="text"):
        raise Trouble(" ".join(said[-2:]) or "apprise could not send it and does not say why")
    return f"{service.service_name}: taken"


def _library() -> Any:
    try:
        return importlib.import_module("apprise")
    except ImportError:
        raise Refused("the package apprise is not installed: pip install 'stepstream[notify]'") from None


def _timed(url: str, timeout_us: int) -> str:
    seconds = f"{timeout_us / 1e6:g}"
    return f"{url}{'&' if '?' in url else '?'}cto={seconds}&rto={seconds}&redirect=no"


def _check(service: Any, kit: Kit) -> None:
    """Services on a host of their own must not be in our network. The library resolves the name again when it sends."""
    schemas = {str(one) for one in (getattr(service, "protocol", None), getattr(service, "secure_protocol", None)) if one}
    if schemas & _OWN_MACHINE:
        raise Refused("apprise services of the machine itself are not allowed")
    templates = " ".join(map(str, getattr(service, "templates", ())))
    host = getattr(service, "smtp_host", None) or getattr(service, "host", None)
    if "{host}" not in templates or not host:
        return
    try:
        addresses(str(host), int(getattr(service, "port", None) or 443), allow_private=kit.allow_private)
    except Forbidden as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise Trouble(f"the host {host} is not known: {error.strerror}") from None


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
