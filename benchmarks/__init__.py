"""Measured speed: `python -m benchmarks.kernel` and `python -m benchmarks.ensemble`. Never part of the tests."""
