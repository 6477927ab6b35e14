"""The demo: a small fleet of agents on the whole pipeline, watched while it works and checked to the event and the cent.

Run it with ``python -m examples.demo``. The agents call real tools (a SQLite shop, a search over a few help articles) and
record themselves through the public SDK. The language model is a seeded stand-in: it plans by a fixed playbook.
"""
