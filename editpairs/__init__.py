"""editpairs from Python: the functions that its commands call."""
