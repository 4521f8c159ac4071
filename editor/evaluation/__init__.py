"""Measuring an editor on edits of any data set."""
