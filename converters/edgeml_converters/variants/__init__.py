"""One variant: from what was asked for to a model that is made and judged."""
