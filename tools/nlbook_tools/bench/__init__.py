"""Benchmarks: ratios of things measured in one run. `nlbook bench` shows them; no test asserts a time."""

from nlbook_tools.bench.core import Report, compare

__all__ = ["Report", "compare"]
