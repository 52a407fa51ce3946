"""Rollouts: one release of one model to a group, in waves, by rows and a deterministic tick."""
