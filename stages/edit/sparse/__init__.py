"""Region-sparse editing: an edit is computed where its mask frees it, and its source is read elsewhere."""
