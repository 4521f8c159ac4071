"""The command line. Everything heavy is imported by the command that needs it."""

from pipeline.cli import run, look, deliver  # noqa: I001 - the order in which --help lists them
from pipeline.cli.app import app
from pipeline.interrupts import heeded

__all__ = ["app", "deliver", "look", "main", "run"]


def main() -> None:
    """The console command."""
    with heeded():
        app()
