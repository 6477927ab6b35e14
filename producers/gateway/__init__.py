"""The gateway: OpenTelemetry and plain JSON over HTTP and gRPC in, step records on Kafka out.

``mapping`` turns spans and log records into steps and knows no network; ``otlp`` reads and writes
the wire formats of OpenTelemetry; ``service`` is the process. ``import stepstream`` imports none
of this.
"""
