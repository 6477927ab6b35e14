"""``console.json`` in the state directory: where the console is, and the secret that signs links.

The file is readable by its owner only, and a program that can read it may sign in as an
operator, as ``stepstream open`` does.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

from stepstream.common.person import who
from stepstream.common.web.credentials import new_secret, write_private
from stepstream.console.signing import LINK, signed

FILE_NAME: Final = "console.json"
LINK_S: Final = 600.0


@dataclass(frozen=True)
class Address:
    """A console of this machine."""

    url: str
    secret: str
    start: str
    """Differs at each start: a link of an earlier start is refused, also if it was not used."""


def kept_secret(state_dir: Path) -> str:
    """The secret of the file, or a new one. Sessions outlive a restart with it."""
    found = read(state_dir)
    return found.secret if found else new_secret()


def publish(state_dir: Path, url: str, secret: str) -> Address:
    """Write the file for a console that starts now."""
    address = Address(url, secret, secrets.token_hex(8))
    write_private(state_dir / FILE_NAME, json.dumps(asdict(address), indent=1))
    return address


def read(state_dir: Path) -> Address | None:
    """The address; None where no console has ever run."""
    try:
        # A file that cannot be read counts as none: the console writes a new one when it starts.
        stored = json.loads((state_dir / FILE_NAME).read_text())
        return Address(str(stored["url"]), str(stored["secret"]), str(stored["start"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def answers(address: Address) -> bool:
    """Whether a console answers there."""
    try:
        with urllib.request.urlopen(f"{address.url}/healthz", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def listens(address: Address) -> bool:
    """Whether something listens there; takes no time where nothing does."""
    where = urlsplit(address.url)
    try:
        socket.create_connection((where.hostname or "", where.port or 80), timeout=0.3).close()
        return True
    except OSError:
        return False


def link(address: Address, page: str = "/", *, base: str = "") -> str:
    """An address that signs its first visitor in and shows ``page``. Valid for ten minutes."""
    fields = {"user": who(), "start": address.start, "nonce": secrets.token_hex(12)}
    token = signed(address.secret, LINK, fields, time.time() + LINK_S)
    return f"{(base or address.url).rstrip('/')}/login?{urlencode({'token': token, 'next': page})}"
