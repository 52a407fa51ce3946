"""Model files: which format and scheme, which files, what they hold, what they could do."""
