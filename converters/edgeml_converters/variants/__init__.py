"""From what was asked for to variants that are made, judged and chosen."""
