"""faust's connection settings: the same brokers, credentials and certificates as for
confluent-kafka.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from faust import OAuthCredentials, SASLCredentials, SSLCredentials
from yarl import URL

from stepstream.common.functions import load_function
from stepstream.schemas.settings import Settings


class HookTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens from the hook that ``kafka_token_hook`` names."""

    def __init__(self, name: str) -> None:
        self._hook = load_function(name, "kafka_token_hook")

    async def token(self) -> str:
        """A token; the hook may block and is called in a thread."""
        token: str
        token, _expiry = await asyncio.to_thread(self._hook)
        return token


def broker_urls(settings: Settings) -> list[URL]:
    """The bootstrap servers as URLs, the form that faust takes."""
    return [
        URL(f"kafka://{server.strip()}")
        for server in settings.kafka_brokers.split(",")
        if server.strip()
    ]


def credentials(settings: Settings) -> Any:
    """faust's credentials, or None for a plain connection."""
    context = _tls_context(settings)
    mechanism = settings.kafka_sasl_mechanism
    if mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=HookTokens(settings.kafka_token_hook), ssl_context=context)
    if mechanism:
        return SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            mechanism=mechanism,
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if not (settings.kafka_tls or settings.kafka_ca_file or settings.kafka_certificate_file):
        return None
    context = ssl.create_default_context(cafile=settings.kafka_ca_file or None)
    if settings.kafka_certificate_file:
        context.load_cert_chain(settings.kafka_certificate_file, settings.kafka_key_file or None)
    return context
