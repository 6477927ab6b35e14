"""What is stored in a Kafka data folder between starts: cluster id, nodes, ports, running
processes."""

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
    """The content of ``instance.json``."""

    cluster_id: str
    nodes: tuple[Node, ...]
    running: tuple[Identity, ...] = ()

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{node.broker_port}" for node in self.nodes)


def load(folder: Path) -> Instance | None:
    """What an earlier start stored; None for a new folder."""
    file = folder / "instance.json"
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
        if content["layout"] != LAYOUT:
            raise FolderMismatch(
                f"{folder} was written by another version (layout {content['layout']}, this is "
                f"{LAYOUT})"
            )
        nodes = tuple(Node(index, *ports) for index, ports in enumerate(content["ports"]))
        running = tuple(Identity(*pair) for pair in content["running"])
        return Instance(content["cluster_id"], nodes, running)
    except (ValueError, KeyError, TypeError) as error:
        raise FolderMismatch(
            f"{file} cannot be read ({error}); restore it, or choose another data folder"
        ) from None


def save(folder: Path, instance: Instance) -> None:
    """Written whole or not at all."""
    content = {
        "layout": LAYOUT,
        "cluster_id": instance.cluster_id,
        "ports": [[node.broker_port, node.controller_port] for node in instance.nodes],
        "running": [[one.pid, one.began] for one in instance.running],
    }
    fresh = folder / "instance.json.new"
    with fresh.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / "instance.json")


def plan(
    earlier: Instance | None,
    *,
    count: int,
    port: int,
    folder: Path,
    setting: str,
    prefer: int = 0,
    again: bool = False,
    free: Callable[[int], bool] = is_free,
) -> Instance:
    """Nodes and ports of this start: the earlier ports where they are still free.

    With a ``port`` node ``i`` listens on ``port + i``; otherwise at the first start on ``prefer +
    i`` if that is free. ``again``: another program took a port after it was found free, so all
    ports that no setting names are new. Raises ``PortTaken`` and ``FolderMismatch``.
    """
    if earlier is not None and len(earlier.nodes) != count:
        raise FolderMismatch(
            f"{folder} contains a cluster of {len(earlier.nodes)} nodes, {count} were requested: "
            f"give it that number, or choose another data folder"
        )
    for index in range(count if port else 0):
        if not free(port + index):
            raise PortTaken(port + index, setting)
    spare = iter(free_ports(2 * count))
    known = earlier or Instance(new_cluster_id(), ())
    ports = known.nodes or tuple(
        Node(index, prefer and prefer + index, 0) for index in range(count)
    )
    if again:
        ports = tuple(Node(index, 0, 0) for index in range(count))
    nodes = tuple(
        Node(
            node.index,
            port + node.index if port else _keep(node.broker_port, spare, free),
            _keep(node.controller_port, spare, free),
        )
        for node in ports
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
