"""Benchmarks: ratios measured side by side in one run; each writes its results beside it."""
