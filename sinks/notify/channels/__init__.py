"""Channels: one module for each kind, one call for all: ``Channels.send``."""
