"""Injected faults: kills, damaged files, random configurations, extreme numbers, hostile images."""
