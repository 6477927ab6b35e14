"""``stepstream.instrument``: records calls of the model clients and frameworks that are there."""
