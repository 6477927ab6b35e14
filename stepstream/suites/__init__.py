"""Runs the cases of a suite: each trial in a process of its own, recorded and scored."""
