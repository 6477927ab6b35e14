"""Guardrails of policies in the agent: which are in force, and what they do to a step."""
