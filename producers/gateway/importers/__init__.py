"""History of other tools, as spans: exports of Langfuse and Phoenix, OTLP files, message lists.
Pure.
"""
