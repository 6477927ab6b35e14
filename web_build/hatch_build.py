"""Hatch's build hook: a wheel or source distribution contains the built pages."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WITHOUT: Final = "STEPSTREAM_BUILD_WITHOUT_CONSOLE"


def _bundle(root: str) -> Any:
    path = Path(root, "web_build/bundle.py")
    spec = importlib.util.spec_from_file_location("stepstream_console_bundle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class PagesHook(BuildHookInterface[Any]):
    """Builds the pages before they are packed.

    An editable install leaves them out: ``make setup`` builds them. A wheel that is made from a
    source distribution finds them there and needs no Node.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        static = Path(self.root, "console/static")
        if version == "editable" or os.environ.get(WITHOUT):
            return
        if not (Path(self.root, "PKG-INFO").is_file() and static.is_dir()):
            bundle = _bundle(self.root)
            try:
                bundle.build()
            except bundle.BuildError as failure:
                message = f"{failure}\nTo build without the console's pages, set {WITHOUT}=1."
                raise RuntimeError(message) from failure
        # Named one by one: git ignores the folder, and so does hatch.
        inside = "stepstream/console" if self.target_name == "wheel" else "console"
        for path in static.rglob("*"):
            if path.is_file():
                build_data["force_include"][str(path)] = (
                    f"{inside}/{path.relative_to(static.parent)}"
                )
