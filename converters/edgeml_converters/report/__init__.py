"""The page that a person reads, the record that a machine reads, and the bundle that both go into."""
