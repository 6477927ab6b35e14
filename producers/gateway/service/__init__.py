"""The gateway's process: HTTP and gRPC in, Kafka out, with keys, limits and back-pressure."""
