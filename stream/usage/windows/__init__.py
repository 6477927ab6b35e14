"""Windows over what runs use: exact totals by event time, sealed to the fleet topic, and what judges them. Pure."""
