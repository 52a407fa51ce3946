"""Ways to a machine: one file per transport."""
