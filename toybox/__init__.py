"""The toybox: a small drawn world, and the recipes that train tiny real models of it."""
