"""Verdicts of people about a run's candidates: drawing rows, collecting and keeping verdicts, estimates."""
