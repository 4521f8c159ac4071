"""Calibration: fitting the filter to verdicts, and estimating what it would keep and throw away."""
