"""Timings, outside the wheel: ``python -m benchmarks``."""
