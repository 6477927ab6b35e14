"""Expressions of policies: a subset of CEL over the run so far."""
