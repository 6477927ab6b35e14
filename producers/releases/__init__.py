"""Releases in the agent: loaded, cached on disk, followed."""
