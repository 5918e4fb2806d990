"""What is fast, measured side by side. Each module prints a table: ``python -m benchmarks.apply``."""
