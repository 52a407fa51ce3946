"""Installing a bundle over a transport, without an agent."""
