"""Pure functions from rows to terminal text; no clock, no broker, no store."""
