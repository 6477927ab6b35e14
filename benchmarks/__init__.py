"""Figures of Stepstream, its peers and limits: ``python -m benchmarks.NAME [--quick] [--json
FILE]``.

``docs/benchmarks.md`` describes what each one measures, and how.
"""
