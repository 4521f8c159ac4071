"""The commands of docs/gpu-quickstart.md on tiny stand-ins: ``python -m tests.quickstart``."""
