"""The live stream: what Kafka has that the store may not have yet, for all viewers at once."""
