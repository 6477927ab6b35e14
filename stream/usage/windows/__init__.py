"""Windows over what runs use.

Exact totals by event time, sealed to the fleet topic, and their evaluation. Pure.
"""
