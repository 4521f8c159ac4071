"""Pairs as training examples: read from shards, split by caption, encoded once."""
