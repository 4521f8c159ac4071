"""Comparing editors that were trained on different sets of pairs, or with one setting changed."""
