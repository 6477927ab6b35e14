"""A folder of a release, as users write it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stepstream.releases.folder import build
from stepstream.schemas.release import Release

MANIFEST: Final = """\
kind: Release
agent: {agent}
version: {version}
model: {{provider: openai, name: gpt-4o, temperature: 0.0}}
prompts:
  plan: [question, customer]
  tone:
tools: [lookup_order]
criteria:
  - tools_called: [lookup_order]
"""
PLAN: Final = 'Help {{ customer.name }} with: {{ question }}\n{% include "tone" %}\n'
TOOL: Final = """\
description: Finds an order.
parameters:
  type: object
  properties: {order: {type: integer}}
  required: [order]
"""


def write_folder(
    folder: Path, *, agent: str = "support", version: str = "v12", tone: str = "Be kind."
) -> Path:
    """A folder with a release; returns it."""
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    (folder / "tools").mkdir(exist_ok=True)
    (folder / "release.yaml").write_text(MANIFEST.format(agent=agent, version=version))
    (folder / "prompts" / "plan.md").write_text(PLAN)
    (folder / "prompts" / "tone.md").write_text(f"{tone}\n")
    (folder / "tools" / "lookup_order.yaml").write_text(TOOL)
    return folder


def built(folder: Path, version: str = "v12", *, agent: str = "support", tone: str = "") -> Release:
    """The release of such a folder; another ``tone`` gives another hash."""
    text = tone or f"Be kind ({version})."
    return build(write_folder(folder, agent=agent, version=version, tone=text), revision="abc")
