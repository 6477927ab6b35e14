"""Delivery of alerts: subscriptions, channels, schedules and results."""
