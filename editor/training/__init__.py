"""Training an editor: one loop, in one process or in the workers of Ray Train."""
