"""Mail over SMTP, on a connection to an address that was checked, within a time that is kept."""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from stepstream.schemas.channels import Email
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channels.http_client import Client, Refused, TemporaryFailure, words_of
from stepstream.sinks.notify.channels.ssrf import Forbidden
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message


def send_email(
    notification: Notification, subscription: Subscription, options: Email, kit: ChannelContext
) -> str:
    """A mail to all recipients."""
    password = kit.secrets.text(options.password) if options.password else ""
    mail = _mail(notification, subscription, options, kit.clock_s())
    deadline = time.monotonic() + options.timeout / 1e6
    try:
        with _session(options, kit.client, deadline) as smtp:
            if options.user:
                smtp.login(options.user, password)
            refused = smtp.send_message(mail)
    except Forbidden as error:
        raise Refused(str(error)) from None
    except smtplib.SMTPRecipientsRefused as error:
        raise Refused(f"no recipient was taken: {_answers(error.recipients)}") from None
    except smtplib.SMTPAuthenticationError as error:  # somebody may put the password right
        raise TemporaryFailure(f"the login was refused: {_text(error)}") from None
    except smtplib.SMTPResponseException as error:
        raise (Refused if error.smtp_code >= 500 else TemporaryFailure)(_text(error)) from None
    except smtplib.SMTPException as error:
        raise TemporaryFailure(
            words_of(TimeoutError(), deadline) if time.monotonic() >= deadline else f"SMTP: {error}"
        ) from None
    except OSError as error:
        raise TemporaryFailure(words_of(error, deadline)) from None
    return f"taken, but not for {_answers(refused)}" if refused else "taken"


@contextlib.contextmanager
def _session(options: Email, client: Client, deadline: float) -> Iterator[smtplib.SMTP]:
    """A session with the server, encrypted as is wanted."""
    sock = client.connect(options.host, options.port, deadline, tls=options.encryption == "tls")
    with (
        socket.socket(fileno=os.dup(sock.fileno())) as other,
        client.watchdog.watch(other, deadline),
    ):
        smtp = _Smtp(options.host, options.port, sock)
        try:
            if options.encryption == "starttls":
                smtp.starttls(context=client.context)
            yield smtp
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()  # the mail is taken, whatever is said to a farewell
        finally:
            smtp.close()


class _Smtp(smtplib.SMTP):
    """Speaks on a connection that it was given and makes none of its own."""

    def __init__(self, host: str, port: int, connection: socket.socket) -> None:
        self._connection = connection
        super().__init__(host, port, timeout=connection.gettimeout() or 1.0)

    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:
        return self._connection


def _text(error: smtplib.SMTPResponseException) -> str:
    said = (
        error.smtp_error.decode("utf-8", "replace")
        if isinstance(error.smtp_error, bytes)
        else str(error.smtp_error)
    )
    return f"SMTP {error.smtp_code}: {said}"


def _answers(recipients: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(
        f"{who}: {code} {said.decode('utf-8', 'replace')}"
        for who, (code, said) in recipients.items()
    )


def _mail(
    notification: Notification, subscription: Subscription, options: Email, now_s: float
) -> EmailMessage:
    words = message(notification, subscription)
    mail = EmailMessage()
    for name, text in (("From", options.sender), ("To", ", ".join(options.to))):
        if not text.isprintable():
            raise Refused(f"{name} holds a line break or another control character")
        mail[name] = text
    mail["Subject"] = words.title
    mail["Date"] = format_datetime(datetime.fromtimestamp(now_s, UTC))
    mail["Message-ID"] = f"<{notification.id}.{notification.attempt}@stepstream>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(words.body)
    return mail
