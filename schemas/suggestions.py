"""The known name that is most like an unknown one. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# Similarity as difflib counts it (0 to 1); its default is 0.6. A guess that is far off misleads.
CUTOFF: Final = 0.65
# Comparing takes time quadratic in the lengths: neither a pasted text nor thousands of names.
MAX_NAME_CHARS: Final = 100
MAX_NAMES: Final = 1_000


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name that is most like ``name``; empty where none is close."""
    # Imported here: the SDK loads this module with every agent, and difflib on the first mistake.
    from difflib import get_close_matches

    names = list(known)
    if not name or len(name) > MAX_NAME_CHARS or len(names) > MAX_NAMES:
        return ""
    close = get_close_matches(name, names, n=1, cutoff=CUTOFF)
    if close:
        return close[0]
    # The beginning of a name, or another case of it, is too unlike for difflib when it is short.
    return next((one for one in names if one.lower().startswith(name.lower())), "")


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """``did you mean X?`` for the known name that is like ``name``.

    Where none is, ``otherwise``, or the list of the known names if that is empty.
    """
    names = list(known)
    if near := nearest_name(name, names):
        return f"did you mean {near}?"
    return otherwise or f"there are: {', '.join(names) or 'none'}"
