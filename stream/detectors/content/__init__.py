"""Detectors that read the inputs and outputs of steps. Each keeps little of them."""
