"""Scripts that print the figures in docs/benchmarks.md. Run one with ``python -m benchmarks.<name>``."""
