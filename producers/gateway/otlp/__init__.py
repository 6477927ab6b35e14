"""The wire formats of OpenTelemetry: requests as spans and log records, answers as the
specification wants them. Pure.
"""
