"""Detectors: small pure classes that look at a run as it goes and say what is wrong with it."""

from __future__ import annotations

from stepstream.stream.detectors.base import Detector, Observation
from stepstream.stream.detectors.registry import make_detector

__all__ = ["Detector", "Observation", "make_detector"]
