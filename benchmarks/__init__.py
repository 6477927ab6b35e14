"""Figures of Stepstream beside its peers and limits: ``python -m benchmarks.NAME [--quick] [--json
FILE]``.

``docs/benchmarks.md`` says what each one measures, and how.
"""
