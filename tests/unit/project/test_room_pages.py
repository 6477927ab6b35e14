"""Each package has a page, and the maps in the pages are those of the modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.package_rules import MAY_IMPORT
from tests.support.paths import ROOT
from tests.support.room_pages import pages, refreshed

# About a page. The wire format, which programs in other languages are written by, is longer.
PAGE_LINES = 80


def test_each_package_has_a_page() -> None:
    """A README.md of about a page."""
    found = {package: ROOT / package / "README.md" for package in MAY_IMPORT}
    # The page of producers comes with the rewritten documents of the SDK.
    assert {package for package, page in found.items() if not page.exists()} <= {"producers"}
    long = {
        package
        for package, page in found.items()
        if page.exists()
        and len(page.read_text().splitlines()) > PAGE_LINES
        and package != "schemas"
    }
    assert long == set()


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_maps_are_current(page: Path) -> None:
    """``python -m tests.support.room_pages`` writes them."""
    assert page.read_text() == refreshed(page)
