"""Rounds: a row without a passing candidate is drawn again (docs/rounds.md)."""
