"""Measurements of one GPU: ``python -m benchmarks.gpu``, or ``make gpu``."""
