"""Classifiers of texts that other packages provide, by name.

A classifier is a function from a text to a score from 0 to 1. A rule that takes one names it in the
policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stepstream.schemas.extensions import Registry

Classifier = Callable[[str], float]
CLASSIFIERS: Final[Registry[Classifier]] = Registry("classifier", group="stepstream.classifiers")
"""Every classifier by name. An entry point names a module that registers one::

    @CLASSIFIERS.register("my-model")
    def score(text: str) -> float: ...
"""
