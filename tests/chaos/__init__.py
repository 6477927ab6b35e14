"""Faults under load: real processes over a real Kafka, killed, frozen and restarted while a known
load runs.

``harness`` brings cluster, processes, load and faults together, ``load`` makes runs whose truth is
known, ``faults`` plans what is broken and when, ``checks`` reads the topics to their ends and
compares.
``make chaos`` runs the long form.
"""
