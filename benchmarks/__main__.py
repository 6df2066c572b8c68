"""Run `python -m benchmarks.run` as `python -m benchmarks`."""

from benchmarks.run import main

main()
