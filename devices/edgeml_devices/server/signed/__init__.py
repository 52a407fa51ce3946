"""The repository of signed metadata, and the keys that the server signs with."""
