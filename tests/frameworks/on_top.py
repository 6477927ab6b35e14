"""Makes the packages of another environment importable in the one that runs this.

Its own packages go before them, so that it may have other versions of some.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path


def main(packages: str) -> None:
    """``packages``: the folder of the other environment's packages."""
    # Not a plain path: editable installs are path files of the other environment, which are only
    # read in a folder that is added in this way.
    line = f"import site; site.addsitedir({packages!r})"
    Path(sysconfig.get_path("purelib"), "on_top.pth").write_text(line + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
