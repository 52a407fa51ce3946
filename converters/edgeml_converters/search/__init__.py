"""Which variant is the best of those that can be made: what is tried, measured and chosen, and why."""
