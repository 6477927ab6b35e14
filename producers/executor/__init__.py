"""Runs agents as durable tasks: the process ``stepstream executor``."""
