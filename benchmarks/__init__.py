"""Benchmarks: one question per file, with attimo and a floor in the same run. `python -m benchmarks` runs all."""
