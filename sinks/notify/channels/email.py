"""Mail over SMTP."""

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
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stepstream.schemas.channels import CHANNELS, Channel, Secret, Text
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channel import ChannelContext, Refused, TemporaryFailure
from stepstream.sinks.notify.deadlines import DEADLINES
from stepstream.sinks.notify.failures import describe_failure
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message
from stepstream.sinks.notify.ssrf import ForbiddenAddress

if TYPE_CHECKING:
    from stepstream.sinks.notify.http_client import HttpClient


@CHANNELS.register("email")
class Email(Channel):
    """A mail over SMTP, encrypted unless ``encryption`` is ``none``."""

    host: Text
    port: int = Field(587, gt=0, le=65535)
    user: str = Field("", description="login; empty: none")
    password: Secret = Field("", validate_default=False)
    sender: Text = Field(description="address of the sender")
    to: tuple[Text, ...] = Field(min_length=1, description="addresses of the recipients")
    encryption: Annotated[str, Field(pattern="^(starttls|tls|none)$")] = Field(
        "starttls", description="starttls, tls or none"
    )

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Send one mail to all recipients."""
        password = context.secret(self.password) if self.password else ""
        mail = self._mail(notification, subscription, context.clock_s())
        deadline = time.monotonic() + self.timeout / 1e6
        try:
            with self._session(context.client, deadline) as smtp:
                if self.user:
                    smtp.login(self.user, password)
                refused = smtp.send_message(mail)
        except ForbiddenAddress as error:
            raise Refused(str(error)) from None
        except smtplib.SMTPRecipientsRefused as error:
            raise Refused(f"no recipient was accepted: {_answers(error.recipients)}") from None
        except smtplib.SMTPAuthenticationError as error:
            # Temporary: the operator may correct the password.
            raise TemporaryFailure(f"the login was refused: {_answer(error)}") from None
        except smtplib.SMTPResponseException as error:
            failure = Refused if error.smtp_code >= 500 else TemporaryFailure
            raise failure(_answer(error)) from None
        except smtplib.SMTPException as error:
            is_late = time.monotonic() >= deadline
            text = describe_failure(TimeoutError(), deadline) if is_late else f"SMTP: {error}"
            raise TemporaryFailure(text) from None
        except OSError as error:
            raise TemporaryFailure(describe_failure(error, deadline)) from None
        return f"accepted, but not for {_answers(refused)}" if refused else "accepted"

    @contextlib.contextmanager
    def _session(self, client: HttpClient, deadline: float) -> Iterator[smtplib.SMTP]:
        """A session with the server, encrypted as the option ``encryption`` asks for."""
        sock = client.connect(self.host, self.port, deadline, tls=self.encryption == "tls")
        # A second handle of the connection: STARTTLS replaces the socket object.
        with (
            socket.socket(fileno=os.dup(sock.fileno())) as handle,
            DEADLINES.limit(deadline) as limit,
        ):
            limit.sock = handle
            sock.settimeout(limit.remaining_s)
            smtp = _ConnectedSmtp(self.host, self.port, sock)
            try:
                if self.encryption == "starttls":
                    smtp.starttls(context=client.ssl_context)
                yield smtp
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    smtp.quit()  # the mail is accepted, whatever the answer to this is
            finally:
                smtp.close()

    def _mail(
        self, notification: Notification, subscription: Subscription, now_s: float
    ) -> EmailMessage:
        text = message(notification, subscription)
        mail = EmailMessage()
        for name, value in (("From", self.sender), ("To", ", ".join(self.to))):
            if not value.isprintable():
                raise Refused(f"{name} contains a line break or another control character")
            mail[name] = value
        mail["Subject"] = text.title
        mail["Date"] = format_datetime(datetime.fromtimestamp(now_s, UTC))
        mail["Message-ID"] = f"<{notification.id}.{notification.attempt}@stepstream>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(text.body)
        return mail


class _ConnectedSmtp(smtplib.SMTP):
    """SMTP over a connection that was made, and checked, before."""

    def __init__(self, host: str, port: int, connection: socket.socket) -> None:
        self._connection = connection
        super().__init__(host, port, timeout=connection.gettimeout() or 1.0)

    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:
        return self._connection


def _answer(error: smtplib.SMTPResponseException) -> str:
    text: bytes | str = error.smtp_error
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return f"SMTP {error.smtp_code}: {text}"


def _answers(recipients: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(
        f"{address}: {code} {text.decode('utf-8', 'replace')}"
        for address, (code, text) in recipients.items()
    )
