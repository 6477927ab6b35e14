"""Rules that are evaluated on the store: by a sink, on a schedule."""
