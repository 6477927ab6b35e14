"""The ports of our processes below ``up``: metrics of worker, sink and notifier, the notifier's
admin API, gateway and console.

Ports that the settings name are used as they are. The others are the usual ones where those are
free, and the same ones again at the next start. One that another program takes meanwhile is
replaced.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from stepstream.common.listen import AddressTaken
from stepstream.common.web.credentials import write_private
from stepstream.local.embedded.ports import LOOPBACK, free_ports, is_free
from stepstream.schemas.settings import Settings

NOTIFY: Final = "notify"
GATEWAY: Final = "gateway"
CONSOLE: Final = "console"
METRICS: Final = {"worker": "metrics_worker", "sink": "metrics_sink", "notify": "metrics_notify"}
"""Each part's name in the list of addresses, in the order of the ports."""
USUAL: Final = {
    "notify": 8124,
    "metrics_worker": 9464,
    "metrics_sink": 9465,
    "metrics_notify": 9466,
    "gateway": 4318,
    "console": 8125,
}
PORT_SETTINGS: Final = {NOTIFY: "notify_port", GATEWAY: "gateway_port", CONSOLE: "console_port"}
"""The settings of the ports that are not those of metrics."""
FILE_NAME: Final = "ports.json"


class ServicePorts:
    """Which port each server of our processes has. Safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        usual: bool,
        free: Callable[[int], bool] = is_free,
    ) -> None:
        """``usual``: the usual ports are preferred in a new data folder."""
        self._file = folder / FILE_NAME
        self._host = settings.metrics_host
        self._free = free
        self._guard = threading.Lock()
        self._set = _set(settings)
        self._ports = dict(self._set)
        wanted = {**(USUAL if usual else {}), **self._kept()}
        for name in USUAL:
            if name not in self._ports:
                port = wanted.get(name, 0)
                used = set(self._ports.values())
                self._ports[name] = (
                    port if port and free(port) and port not in used else _others(1, used)[0]
                )

    def check(self) -> None:
        """Raise ``AddressTaken`` when a port that the settings name is taken."""
        for name, port in self._set.items():
            if port > 0 and not self._free(port):
                raise AddressTaken(port, PORT_SETTINGS.get(name, "metrics_port"))

    def of(self, part: str) -> dict[str, Any]:
        """The settings of one part's process."""
        with self._guard:
            if part not in METRICS:
                return {PORT_SETTINGS[part]: self._ports[part]}
            return {"notify_port": self._ports[NOTIFY], "metrics_port": self._ports[METRICS[part]]}

    def choose_again(self, part: str) -> bool:
        """Choose other ports for a part with a taken port; False when settings name all of them."""
        own = [part] if part in PORT_SETTINGS else []
        names = [*([METRICS[part]] if part in METRICS else []), *own]
        with self._guard:
            mine = [name for name in names if name not in self._set]
            # One of them is taken; checking which one would take time in which it may change.
            for name, port in zip(mine, _others(len(mine), set(self._ports.values())), strict=True):
                self._ports[name] = port
        return bool(mine)

    def urls(self) -> dict[str, str]:
        """The URLs of the servers, by name, without those that are turned off."""
        with self._guard:
            ports = dict(self._ports)
        host = LOOPBACK if self._host in ("", "0.0.0.0", "::") else self._host
        found = {
            name: f"http://{host}:{ports[name]}/metrics"
            for name in METRICS.values()
            if ports[name] > 0
        }
        # These servers listen on the loopback interface, or on an address that includes it.
        main = {
            name: f"http://{LOOPBACK}:{ports[name]}" for name in PORT_SETTINGS if ports[name] > 0
        }
        return main | found

    def save(self) -> None:
        """Remember the chosen ports for the next start."""
        with self._guard:
            chosen = {name: port for name, port in self._ports.items() if name not in self._set}
        write_private(self._file, json.dumps(chosen, indent=1))

    def _kept(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            kept = json.loads(self._file.read_text())
            return {
                name: port for name, port in kept.items() if name in USUAL and isinstance(port, int)
            }
        return {}


def _others(count: int, used: set[int]) -> list[int]:
    """Free ports that no part has. One that has not started yet does not listen on its own."""
    return [port for port in free_ports(count + len(used)) if port not in used][:count]


def _set(settings: Settings) -> dict[str, int]:
    """The ports that the settings name, and -1 for what they turn off."""
    found = {
        name: port for name, field in PORT_SETTINGS.items() if (port := getattr(settings, field))
    }
    if settings.metrics_port:
        for number, name in enumerate(METRICS.values()):
            found[name] = settings.metrics_port + number if settings.metrics_port > 0 else -1
    return found
