"""OpenTelemetry inside the agent's process: spans as steps, from their start on, and sampling."""
