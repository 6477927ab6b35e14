"""Simulated agents: load with faults from a seeded scenario, and checks of what is found in it."""
