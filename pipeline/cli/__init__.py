"""The command line. Each command imports large libraries only when it runs."""

from pipeline.cli import run, look, verdicts, deliver  # noqa: I001 - the order in which --help lists them
from pipeline.cli.app import app
from pipeline.interrupts import heeded

__all__ = ["app", "deliver", "look", "main", "run", "verdicts"]


def main() -> None:
    """The entry point of the console command."""
    with heeded():
        app()
