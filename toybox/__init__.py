"""The toybox: a small drawn world, and recipes that train tiny real models on it."""
