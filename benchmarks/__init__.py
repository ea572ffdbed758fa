"""Measurements that the README quotes. Each runs as `python -m benchmarks.NAME`."""
