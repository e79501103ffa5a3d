"""How many labels each strategy needs, replayed on real photographs: `python -m benchmarks.labels`."""
