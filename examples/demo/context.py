"""What the parts of the demo share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from examples.demo.alertlog import AlertLog
from examples.demo.fleet import Fleet
from examples.demo.foreign import Foreign
from examples.demo.ledger import Ledger
from stepstream.render.glyphs import Glyphs
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    seconds: float
    seed: int
    keep: bool
    svg: Path | None = None


@dataclass
class DemoContext:
    """What the parts of the demo share."""

    options: Options
    console: Console
    glyphs: Glyphs
    settings: Settings
    ledger: Ledger
    fleet: Fleet
    foreign: Foreign
    alerts: AlertLog
    client: Client
