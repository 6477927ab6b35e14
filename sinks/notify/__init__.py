"""Delivery of alerts: who wants what, when it is told, through which channel, and what became of it."""
