"""Calls to the outside, recorded while a run goes on, and served again when it is replayed."""
