"""Channels that are the same for every input, or that nothing reads, taken out of a float model."""
