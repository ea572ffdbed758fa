"""Benchmarks whose results the documentation quotes. Run one with ``python -m benchmarks.NAME``."""
