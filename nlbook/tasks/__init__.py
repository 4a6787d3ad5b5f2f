"""Synthetic data with a known optimum: recall, formal languages, task streams, a needle, time scales."""
