"""Scripts that print the figures the README quotes. Run them as ``python -m benchmarks.<name>``."""
