"""Submits tasks, and follows, cancels and repeats them."""
