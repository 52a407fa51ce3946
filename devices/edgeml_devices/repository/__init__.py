"""Keys and signed releases: what is done where the keys are."""
