"""Spans and log records of every convention, as steps. Pure: no input or output, no clock."""
