"""Policies tried on recorded runs, with the worker's own stages and without Kafka."""
