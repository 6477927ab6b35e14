"""The demo: a small fleet of agents on the whole pipeline, checked to the event and the cent.

Run it with ``python -m examples.demo``. The agents call real tools (a SQLite shop, a search over a
few help articles) and record themselves through the public SDK. The language model is a stand-in
with a seed: it plans by fixed rules.
"""
