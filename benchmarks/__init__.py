"""Measurements, side by side. A module with a main() prints a table: ``python -m benchmarks.apply``."""
