"""What a Kafka data folder remembers between starts: cluster id, nodes, ports, and who was running."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stepstream.common.process import Identity
from stepstream.local.embedded.errors import FolderMismatch, PortTaken
from stepstream.local.embedded.ports import free_ports, is_free
from stepstream.local.embedded.properties import Node

LAYOUT = 1


@dataclass(frozen=True)
class Instance:
    """The folder's memory, as in ``instance.json``."""

    cluster_id: str
    nodes: tuple[Node, ...]
    running: tuple[Identity, ...] = ()

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{node.broker_port}" for node in self.nodes)


def load(folder: Path) -> Instance | None:
    """The memory of an earlier start; None for a new folder."""
    file = folder / "instance.json"
    if not file.exists():
        return None
    try:
        held = json.loads(file.read_text())
        if held["layout"] != LAYOUT:
            raise FolderMismatch(
                f"{folder} was written by another version (layout {held['layout']}, this is {LAYOUT})"
            )
        nodes = tuple(Node(index, *ports) for index, ports in enumerate(held["ports"]))
        running = tuple(Identity(*pair) for pair in held["running"])
        return Instance(held["cluster_id"], nodes, running)
    except (ValueError, KeyError, TypeError) as error:
        raise FolderMismatch(
            f"{file} cannot be read ({error}); restore it, or choose another data folder"
        ) from None


def save(folder: Path, instance: Instance) -> None:
    """Written whole or not at all."""
    held = {
        "layout": LAYOUT,
        "cluster_id": instance.cluster_id,
        "ports": [[node.broker_port, node.controller_port] for node in instance.nodes],
        "running": [[one.pid, one.began] for one in instance.running],
    }
    fresh = folder / "instance.json.new"
    with fresh.open("w") as file:
        json.dump(held, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / "instance.json")


def plan(
    held: Instance | None,
    *,
    count: int,
    port: int,
    folder: Path,
    setting: str,
    prefer: int = 0,
    again: bool = False,
    free: Callable[[int], bool] = is_free,
) -> Instance:
    """Nodes and ports of this start: the earlier ones where they are still free, a given one always.

    Node ``i`` listens on ``port + i`` when a port is given, and on ``prefer + i`` the first time if that is free.
    ``again``: a port of the first choice was taken between the look and the start, so all chosen ports are new ones.
    Raises PortTaken and FolderMismatch.
    """
    if held is not None and len(held.nodes) != count:
        raise FolderMismatch(
            f"{folder} holds a cluster of {len(held.nodes)} nodes, {count} were asked for: "
            f"give it that number, or choose another data folder"
        )
    for index in range(count if port else 0):
        if not free(port + index):
            raise PortTaken(port + index, setting)
    spare = iter(free_ports(2 * count))
    known = held or Instance(new_cluster_id(), ())
    earlier = known.nodes or tuple(
        Node(index, prefer and prefer + index, 0) for index in range(count)
    )
    if again:
        earlier = tuple(Node(index, 0, 0) for index in range(count))
    nodes = tuple(
        Node(
            node.index,
            port + node.index if port else _keep(node.broker_port, spare, free),
            _keep(node.controller_port, spare, free),
        )
        for node in earlier
    )
    return replace(known, nodes=nodes, running=())


def _keep(before: int, spare: Iterator[int], free: Callable[[int], bool]) -> int:
    return before if before and free(before) else next(spare)


def new_cluster_id() -> str:
    """A random UUID as Kafka writes it; it never begins with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
