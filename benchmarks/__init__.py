"""One file, one question; the floor and attimo in the same run. `python -m benchmarks` answers all of them."""
